//! Records as a gateway writes them of sessions that move, for benches of the record. Owns their make-up: one session is
//! switched seven times and ended, with every field a switch has. Never a record that `audit verify` would not take.

use jvpn_common::event::{Context, Event, Record, TransportText};
use jvpn_common::ids::{OwnerEpoch, SessionId, Version};
use jvpn_common::message::Label;
use jvpn_common::reason::Reason;
use jvpn_common::session::{Birth, Ender, Input, Policy, Session, State, TransportClass};
use jvpn_common::time::Instant;
use serde_json::json;

/// Transitions of one session.
const OF_A_SESSION: u64 = 8;

/// What all of them are made from.
#[derive(Debug)]
pub struct Records(Record);

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

impl Records {
    #[must_use]
    pub fn new() -> Self {
        let (policy, at) = (Policy::field(), Instant(1_000_000_000));
        let context = Context { ts: "2026-01-02T03:04:05.123456789Z", at, node: "gw-1", seq: 0, peer: "till-17" };
        let born = Birth { id: SessionId([7; 16]), peer: [9; 32], owner_epoch: OwnerEpoch(1) };
        let step = Session::born(born, &policy, at).step(&Input::Terminate { by: Ender::Operator }, &policy, at);
        let step = step.expect("a session may end");
        let transition = step.transitions.first().expect("one transition");
        let mut record = Record::transition(&context, transition);
        let label = |name: &str, port: u16| TransportText {
            k: jvpn_common::ids::TransportIndex(port),
            remote: ([203, 0, 113, 7], port).into(),
            gateway: 0,
            label: Label::new(name),
            class: TransportClass::Primary,
            mtu: 1_400,
            since: at,
        };
        (record.transport.from, record.transport.to) = (Some(label("wifi", 40_001)), Some(label("lte", 40_002)));
        // A core with two candidates is half as long again as one at its birth.
        let before = record.before.take().unwrap_or_default();
        record.before = Some(before.repeat(2));
        for (key, value) in [
            ("candidates", json!(2)),
            ("commit_us", json!(212)),
            ("detect_us", json!(31_250)),
            ("loss_permille", json!(40)),
            ("prove_us", json!(44_100)),
            ("reasons", json!(["NO_DELIVERY"])),
            ("srtt_us", json!(22_000)),
        ] {
            record.note(key, value);
        }
        Self(record)
    }

    /// The `number`th of them, from 0.
    #[must_use]
    pub fn record(&self, number: u64) -> Record {
        let (session, step) = (number / OF_A_SESSION, number % OF_A_SESSION + 1);
        let mut record = self.0.clone();
        record.session_id = Some(SessionId((u128::from(session) << 64 | 7).to_be_bytes()));
        record.state_version = Version(step);
        record.at = Instant(number * 1_000_000);
        let last = step == OF_A_SESSION;
        record.event = if last { Event::StateChange } else { Event::TransportSwitch };
        record.from = Some(State::Recovering);
        record.to = Some(if last { State::Terminated } else { State::Attached });
        record.reason = Some(if last { Reason::OperatorTermination } else { Reason::ReattachAccept });
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_ctl::audit::verify::{Wanted, segments_of, verify};
    use jvpn_ctl::audit::{Audit, dir_of};

    #[test]
    fn a_record_of_them_holds_and_a_line_is_as_long_as_a_gateways() {
        let state = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(state.path()).unwrap();
        let records = Records::new();
        audit.append_all((0..100).map(|number| records.record(number)).collect()).unwrap();
        drop(audit);
        let segments = segments_of(&dir_of(state.path())).unwrap();
        let report = verify(&Wanted { segments, ..Wanted::default() }).unwrap();
        assert_eq!((report.fault, report.records), (None, 100));
        let mean = report.bytes / 100;
        assert!((1_100..1_700).contains(&mean), "{mean} bytes a record");
    }
}
