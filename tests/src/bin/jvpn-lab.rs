//! The lab's command: ping, demo, bench, clean. Owns arguments and what is printed; never measures or judges. Called
//! `jvpn-ctl` it is the product as it was built beside the suites.

use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use jvpn_ctl::dataplane::attach::Program;
use jvpn_tests::bench;
use jvpn_tests::lab::demo::{self, Options};
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology as at;
use jvpn_tests::lab::{self, Lab, mode, registry, report};
use jvpn_tests::packet_cases;
use jvpn_tests::packet_compare::Both;
use jvpn_tests::packet_relay;
use jvpn_tests::rows::Evidence;

/// How long a path may take to become a candidate, also in an emulated machine.
const CANDIDATE_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Parser)]
#[command(name = "jvpn-lab", about = "Two networks in namespaces, and the real product in them")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Xdp {
    Native,
    Generic,
    Auto,
    Off,
}

/// What was asked for, else what `JVPN_LAB_XDP` says.
fn mode(asked: Option<Xdp>) -> mode::Xdp {
    match asked {
        None => mode::Xdp::Switched,
        Some(Xdp::Native) => mode::Xdp::Native,
        Some(Xdp::Generic) => mode::Xdp::Generic,
        Some(Xdp::Auto) => mode::Xdp::Auto,
        Some(Xdp::Off) => mode::Xdp::Detached,
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Bring up a lab and a session, ping inside the tunnel both ways in IPv4 and IPv6, remove everything
    Ping {
        /// How the kernel program sits; native unless JVPN_LAB_XDP says otherwise
        #[arg(long, value_enum)]
        xdp: Option<Xdp>,
        /// Carry the tunnel over IPv6
        #[arg(long)]
        outside_v6: bool,
        /// Then move the session to the other path, and ping again
        #[arg(long)]
        jump: bool,
    },
    /// Run one packet for every verdict through the kernel program and the same function on the host
    Packets,
    /// Play the acts and say which promises were kept
    Demo {
        /// Print one JSON document instead
        #[arg(long)]
        json: bool,
        /// Write raw flows, the record, map dumps and logs here
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Play only this act; may be given several times
        #[arg(long = "act", value_name = "NAME")]
        acts: Vec<String>,
        /// Leave the lab up and print how to enter it
        #[arg(long)]
        keep: bool,
        /// How the kernel program sits; native unless JVPN_LAB_XDP says otherwise
        #[arg(long, value_enum)]
        xdp: Option<Xdp>,
    },
    /// Measure ours and rivals in interleaved rounds
    Bench {
        /// Which bench; a name that is not there is answered with those that are
        ///
        /// Without a name: all of them, one after the other.
        name: Option<String>,
        /// Few, short rounds: shows that it works, decides nothing
        #[arg(long)]
        quick: bool,
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// Another userspace WireGuard to measure beside those that are known
        #[arg(long, value_name = "PROGRAM")]
        wireguard: Option<PathBuf>,
        /// Only this cell of `outage`, scenario, contender or variant; may be given several times
        #[arg(long, value_name = "CELL")]
        only: Vec<String>,
        /// Print one JSON document instead
        #[arg(long)]
        json: bool,
        /// Write the document, a table, a chart and raw output here
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
        /// Put the document of each whole run into docs/bench, and write docs/benchmarks.md and its charts anew
        #[arg(long, conflicts_with_all = ["quick", "only"])]
        publish: bool,
    },
    /// Check that the document in a directory written with --out is what its raw files say
    Recompute { directory: PathBuf },
    /// Print which rows of the transition table the runs of a test recorded, and fail when one has none
    Rows { directory: PathBuf },
    /// Bring up the bare lab, print its name, and hold it until Ctrl-C
    Up,
    /// Remove what killed and kept labs left
    Clean {
        /// Only these labs
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if FilePath::new(&name).file_name().is_some_and(|name| name == "jvpn-ctl") {
        return jvpn_ctl::cli::main();
    }
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Recompute { directory } => {
            println!("recomputed: {}", report::verify(&directory)?.join(", "));
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Rows { directory } => return rows(&directory),
        Verb::Ping { .. } | Verb::Packets | Verb::Demo { .. } | Verb::Bench { .. } | Verb::Up | Verb::Clean { .. } => {}
    }
    if let Err(error) = lab::require_root() {
        eprintln!("error: {error:#}");
        return Ok(ExitCode::from(7));
    }
    lab::guard_signals()?;
    match verb {
        Verb::Ping { xdp, outside_v6, jump } => ping_all(xdp, outside_v6, jump),
        Verb::Packets => {
            let mut runs = 0;
            for (program, cases) in [(Program::Gateway, packet_cases::all()), (Program::Relay, packet_relay::all())] {
                let mut both = Both::new(program);
                cases.iter().for_each(|case| both.check(case, std::iter::empty()));
                runs += both.runs;
            }
            println!("{runs} frames, the same in this kernel and on the host");
            Ok(ExitCode::SUCCESS)
        }
        Verb::Demo { json, out, acts, keep, xdp } => {
            let broken = std::env::var("JVPN_BREAK").ok().filter(|name| !name.is_empty());
            let options = Options { acts, keep, out, xdp: mode(xdp), broken };
            let document = demo::run(&options)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&document)?);
            } else {
                print!("{}", document.human());
                println!(
                    "\ntry next:\n  cargo xtask demo --act silent_death --out target/demo\n  \
                     cargo xtask demo --keep\n  cargo xtask bench tunnel --quick"
                );
            }
            Ok(if document.pass { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Verb::Bench { name, quick, rounds, wireguard, only, json, report, publish } => {
            let options = bench::Options { quick, rounds, wireguard, only, report };
            measure(name.as_deref(), &options, json, publish)
        }
        Verb::Up => {
            let lab = Lab::up()?;
            println!("{}", lab.prefix());
            eprintln!("enter with: nsenter --net=/run/netns/{}-client; Ctrl-C removes it", lab.prefix());
            loop {
                std::thread::park();
            }
        }
        Verb::Clean { names } => {
            let (removed, in_use) = registry::clean(&names)?;
            println!("removed: {}", if removed.is_empty() { "nothing".into() } else { removed.join(" ") });
            if !in_use.is_empty() {
                println!("still in use by a running process: {}", in_use.join(" "));
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Recompute { .. } | Verb::Rows { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// Runs one bench or all; fails when one of them could not be measured or published, or breaks a must.
fn measure(name: Option<&str>, options: &bench::Options, json: bool, publish: bool) -> Result<ExitCode> {
    if publish {
        bench::publish::allowed(options)?;
    }
    let mut all_pass = true;
    let mut done = |name: &str, document: Result<bench::document::Document>| -> Result<()> {
        all_pass &= document.as_ref().is_ok_and(bench::document::Document::pass);
        if let Some(document) = document.as_ref().ok().filter(|_| publish)
            && let Err(error) = bench::publish::publish(&bench::page::docs(), document)
        {
            all_pass = false;
            eprintln!("error: bench {name} is not published: {error:#}");
        }
        match document {
            Ok(document) if json => println!("{}", serde_json::to_string_pretty(&document)?),
            Ok(document) => print!("{}", document.human()),
            Err(error) => eprintln!("error: bench {name}: {error:#}"),
        }
        Ok(())
    };
    match name {
        Some(name) => done(name, bench::run(name, options))?,
        None => bench::run_all(options, done)?,
    }
    Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn rows(directory: &FilePath) -> Result<ExitCode> {
    let evidence = Evidence::read(directory)?;
    print!("{}", evidence.table());
    let missing = evidence.missing();
    ensure!(missing.is_empty(), "no run recorded row {missing:?}");
    Ok(ExitCode::SUCCESS)
}

fn ping_all(xdp: Option<Xdp>, outside_v6: bool, jump: bool) -> Result<ExitCode> {
    let lab = Lab::up()?;
    let setup = Setup { xdp: mode(xdp), outside_v6, ..Setup::default() };
    let mut product = Product::start(&lab, &setup)?;
    product.wait_healthy()?;
    let mut answered = pings(&lab)?;
    if jump {
        println!("{}", jump_away(&product)?);
        answered &= pings(&lab)?;
    }
    if !answered {
        eprintln!("{}\n{}", product.log_tail(Role::Gateway), product.log_tail(Role::Client));
    }
    for role in [Role::Client, Role::Gateway] {
        product.stop(role)?;
    }
    lab.down()?;
    Ok(ExitCode::from(u8::from(!answered)))
}

/// Every direction in both families, small and large; whether all answered.
fn pings(lab: &Lab) -> Result<bool> {
    let (client, lan) = (lab.topology.client(), lab.topology.lan());
    let mut answered = true;
    for (from, name, target) in [
        (&client, "client → gateway", at::INNER_GATEWAY_V4),
        (&client, "client → gateway", at::INNER_GATEWAY_V6),
        (&client, "client → LAN", at::LAN_V4),
        (&client, "client → LAN", at::LAN_V6),
        (&lan, "LAN → client", at::INNER_CLIENT_V4),
        (&lan, "LAN → client", at::INNER_CLIENT_V6),
    ] {
        let ip: IpAddr = target.parse().context("address of the lab")?;
        for size in [56, 1_200] {
            match ping(from, ip, size, Duration::from_secs(15)) {
                Ok(time) => println!("{name} {target}, {size} bytes: {:.3} ms", time.as_secs_f64() * 1e3),
                Err(error) => {
                    answered = false;
                    println!("{name} {target}, {size} bytes: FAILED {error:#}");
                }
            }
        }
    }
    Ok(answered)
}

/// Moves the session to the path it is not on; what the product says of it.
fn jump_away(product: &Product) -> Result<String> {
    let sessions = product.json(Role::Gateway, &["sessions"])?;
    let now = sessions["sessions"][0]["transport"]["name"].as_str().context("a bound session")?;
    let other = if now == "path-a" { "path-b" } else { "path-a" };
    let started = Instant::now();
    loop {
        let (code, said, complaint) = product.verb(Role::Client, &["jump", "--to", other])?;
        if code == 0 {
            return Ok(said.trim_end().to_owned());
        }
        // A standby path is a candidate once a full-size probe came back.
        ensure!(started.elapsed() < CANDIDATE_PATIENCE, "no jump to {other}: {said}{complaint}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
