//! Two gateways that both have a session: one went on with it, the other was started on a copy of its state directory, with
//! the same key and the same address, while the first could not be reached. Both run the real product.
//!
//! Owns the fork and the way the address is moved from one to the other. Must never tell either that there is another.

use super::*;
use jvpn_tests::lab::record::{Session, history};
use jvpn_tests::lab::topology::{OWNERS_V4, Path};

/// The gateway with the session, and the one on a copy of its state.
const HERE: Role = Role::Gateway;
const THERE: Role = Role::OtherGateway;

struct Fork {
    product: Product,
    lab: Lab,
}

impl Fork {
    /// The first owner's client has a session; the second owner's gateway and client are not started yet.
    fn up() -> Fork {
        if let Err(error) = require_root() {
            panic!("{error:#}");
        }
        let lab = Lab::with(0, 2).expect("a lab");
        let setup = Setup { owners: 2, ..Setup::default() };
        let mut product = Product::start(&lab, &setup).expect("both sides");
        product.wait_healthy().expect("sessions");
        for role in [Role::OtherClient, THERE] {
            product.stop(role).expect("stopped");
        }
        // The address is its own as well, should it be led there.
        lab.topology.gateway_of(1).ip(&format!("address add {GATEWAY_V4}/32 dev wan\n")).expect("an address");
        Fork { product, lab }
    }

    fn files(&self, role: Role) -> PathBuf {
        self.product.log_file(role).parent().expect("a directory").to_owned()
    }

    /// The second gateway gets key, configuration and, as it is now, state of the first.
    fn copy(&self) {
        let [from, to] = [HERE, THERE].map(|role| self.files(role));
        std::fs::copy(from.join("gateway.toml"), to.join("gateway.toml")).expect("copied");
        copy_state(&from.join("state"), &to.join("state"));
    }

    /// Leads the address of the first gateway to the second one, or back.
    fn lead_away(&self, away: bool) {
        let verb = if away { "add" } else { "del" };
        self.lab
            .topology
            .space("core")
            .ip(&format!("route {verb} {GATEWAY_V4}/32 via {}\n", OWNERS_V4[1]))
            .expect("led");
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut there: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = there(self) {
                return found;
            }
            let logs = [HERE, THERE, Role::Client].map(|role| self.product.log_tail(role));
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}\n{}", logs.concat());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The session of a gateway that carries packets.
    fn carried(&self, by: Role) -> Option<Session> {
        let session = live_session(&self.product.json(by, &["sessions"]).ok()?).ok()?;
        let (client, target) = (self.lab.topology.client(), LAN_V4.parse().ok()?);
        let works = session.state == "ATTACHED" && ping(&client, target, 56, Duration::from_secs(1)).is_ok();
        works.then_some(session)
    }

    fn jump(&self, to: Path) {
        let jumped = |fork: &Self| {
            let (code, ..) = fork.product.verb(Role::Client, &["jump", "--to", to.transport()]).ok()?;
            (code == 0).then_some(())
        };
        self.until("a jump", jumped);
    }

    /// Records of a reason, as JSON.
    fn events(&self, of: Role, reason: &str) -> Vec<Value> {
        let (_, out, _) = self.product.verb(of, &["events", "--json", "--reason", reason]).expect("events");
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[test]
fn a_gateway_whose_session_went_on_elsewhere_from_a_copy_of_its_store_ends_it_and_serves_its_client_anew() {
    let mut fork = Fork::up();
    let first = fork.until("a session", |fork| fork.carried(HERE));
    fork.product.stop(HERE).expect("stopped");
    fork.copy();
    fork.product.start_side(HERE).expect("started");
    let resumed = fork.until("it goes on", |fork| fork.carried(HERE));
    assert_eq!(resumed.id, first.id);
    for to in [Path::B, Path::A, Path::B] {
        fork.jump(to);
    }
    let seen = fork.until("it is where it was led", |fork| fork.carried(HERE)).state_version;
    assert!(seen >= resumed.state_version + 2, "{seen}");

    // Nobody ends the first one: it cannot be reached, and the copy is started where its address leads now.
    fork.lead_away(true);
    fork.product.start_side(THERE).expect("started");
    let there = fork.until("the copy has it", |fork| fork.carried(THERE));
    assert_eq!(there.id, first.id, "the same session");
    assert!(there.state_version > seen, "above what the client saw");
    let [told] = &fork.events(THERE, "SEC_STORE_ROLLBACK")[..] else { panic!("once") };
    assert_eq!(told["session_id"], first.id.as_str());
    let [ours, theirs] =
        ["seen_owner_epoch", "owner_epoch"].map(|key| told["details"][key].as_str().unwrap().to_owned());
    assert_eq!((ours.as_str(), theirs.as_str()), ("2", "3"), "a start is an owner, and so is who goes on with a copy");
    let here = live_session(&fork.product.json(HERE, &["sessions"]).expect("it runs")).expect("and believes");
    assert_eq!(here.id, first.id, "two have it until their client shows up");

    fork.product.kill(THERE).expect("gone");
    fork.lead_away(false);
    let anew = fork.until("the first serves again", |fork| fork.carried(HERE).filter(|session| session.id != first.id));
    let ended =
        history(&fork.product.json(HERE, &["sessions", &first.id, "history"]).expect("a history")).expect("lines");
    let last = ended.iter().rev().find(|record| record.is_transition()).expect("a transition");
    assert_eq!(
        (last.to.as_deref(), last.reason.as_deref()),
        (Some("TERMINATED"), Some("OWNERSHIP_CONFLICT")),
        "{ended:?}"
    );
    assert_eq!(fork.events(HERE, "SEC_OWNERSHIP_ANOMALY").len(), 1);
    let (code, why, said) = fork.product.verb(HERE, &["why", &first.id]).expect("why");
    assert_eq!(code, 0, "{why}{said}");
    assert!(why.contains("an owner with epoch 3 was seen") && why.contains("replayed"), "{why}");
    let maps = fork.product.json(HERE, &["maps"]).expect("maps").to_string();
    assert!(maps.contains(&anew.id) && !maps.contains(&first.id), "its slot is free: {maps}");
    let told = fork.events(Role::Client, "OWNERSHIP_CONFLICT");
    assert!(told.iter().any(|line| line["session_id"] == first.id.as_str()), "its client was told: {told:?}");
    let (code, out, said) = fork.product.verb(HERE, &["audit", "verify"]).expect("verify");
    assert_eq!(code, 0, "{out}{said}");
}
