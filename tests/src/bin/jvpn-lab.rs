//! x
fn main(){ jvpn_tests::lab::guard_signals().unwrap(); let t=std::time::Instant::now(); let lab=jvpn_tests::lab::Lab::up().unwrap(); println!("{:?}",t.elapsed());
 use jvpn_tests::lab::{topology::Path,fault::Way};
 for p in Path::BOTH { for w in [Way::Up,Way::Down,Way::Both]{ lab.silence(p,w).unwrap(); } lab.link_down(p).unwrap().undo().unwrap(); lab.canary.prove_both_paths().unwrap(); lab.loss(p,0.05).unwrap(); lab.mtu(p,1300).unwrap(); lab.rate(p,10_000_000).unwrap(); }
 lab.nat_forget().unwrap(); lab.nat_forget().unwrap(); lab.canary.prove_both_paths().unwrap(); println!("{:?}",t.elapsed());
 if std::env::args().len()>1 {std::thread::sleep(std::time::Duration::from_secs(20))}
 let d=lab.down(); println!("{d:?} {:?}",t.elapsed()); }
