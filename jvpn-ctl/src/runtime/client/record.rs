//! The client's own record: what it saw, and what the gateway acknowledged.
//!
//! Owns the translation of events. Each says whether the gateway said so. Must never hold a key.

use super::Client;
use crate::runtime::clock;
use jvpn_common::client::command::{Event, EventKind};
use jvpn_common::event::{Context, Event as Kind, Record};
use jvpn_common::session::State;
use jvpn_common::time::Duration;

impl Client {
    pub(super) fn record(&self, event: &Event) {
        let ts =
            jiff::Timestamp::from_nanosecond(i128::from(clock::wall())).map(|ts| ts.to_string()).unwrap_or_default();
        let context = Context { ts: &ts, at: event.at, node: &self.config.name, seq: 0, peer: "gateway" };
        let mut record = Record::plain(&context, kind(event.kind));
        record.session_id = event.session;
        record.to = State::from_number(event.state);
        record.reason = Some(event.reason);
        record.state_version = event.version;
        record.note("acknowledged", event.acknowledged.into());
        if let Some(detail) = event.detail {
            record.note("reasons", vec![detail.name()].into());
        }
        for (key, label) in [("from_path", event.from), ("to_path", event.to)] {
            if let Some(label) = label {
                record.note(key, label.as_str().into());
            }
        }
        for (key, length) in [("detect_us", event.detect), ("prove_us", event.prove)] {
            if length > Duration::ZERO {
                record.note(key, u64::try_from(length.as_micros()).unwrap_or(u64::MAX).into());
            }
        }
        tracing::info!(
            event = record.event.name(),
            reason = event.reason.name(),
            detail = event.detail.map_or("", |detail| detail.name()),
            from = event.from.as_ref().map_or("", |label| label.as_str()),
            to = event.to.as_ref().map_or("", |label| label.as_str()),
            version = event.version.0,
            acknowledged = event.acknowledged,
        );
        if let Err(error) = self.audit.append(record) {
            tracing::error!(%error, "the client's record could not be written");
        }
    }
}

const fn kind(kind: EventKind) -> Kind {
    match kind {
        EventKind::SessionCreated => Kind::SessionCreated,
        EventKind::Resumed | EventKind::PathLost => Kind::StateChange,
        EventKind::TransportSwitch => Kind::TransportSwitch,
        EventKind::ReattachReject | EventKind::HandshakeFailed => Kind::ReattachReject,
        EventKind::KeyRotated => Kind::KeyRotated,
        EventKind::Condition | EventKind::GoingAway => Kind::Condition,
        EventKind::Termination => Kind::Termination,
    }
}
