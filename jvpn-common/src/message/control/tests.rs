//! Every control message reads back, keeps its size, and refuses what it is not.

use super::*;
use crate::ids::{Locator, OwnerEpoch, Version};
use crate::message::reattach::{Evidence, Purpose};

fn request() -> Request {
    Request {
        purpose: Purpose::Lost,
        nonce: u64::MAX,
        nonce_floor: 3,
        last_version: Version(4),
        quoted_echo: 5,
        label: Label::new("sixteen-bytes-00"),
        class: 2,
        mtu: 1_400,
        evidence: Evidence { what: Some(Reason::NoDelivery), srtt_us: 6, candidates: 2, ..Evidence::default() },
    }
}

fn every_kind() -> Vec<Control> {
    let locators: Vec<_> = (0..6).map(|k| (TransportIndex(k), Locator(u64::MAX))).collect();
    vec![
        Control::Confirm { label: Label::new("wifi"), class: 0, mtu: 1_500 },
        Control::Reattach(request()),
        Control::Challenge { nonce: 1, cookie: [7; 16], cookie_time: 9 },
        Control::Prove { request: request(), cookie: [7; 16], cookie_time: 9 },
        Control::Ack(Ack {
            nonce: 1,
            purpose: Purpose::Rebind,
            version: Version(2),
            state: 1,
            owner_epoch: OwnerEpoch(3),
            locators,
            retired: (0..6).map(TransportIndex).collect(),
        }),
        Control::Reject(Reject {
            nonce: 1,
            reason: Reason::PolicyDeny,
            detail: Some(Reason::CooldownActive),
            retry_after_ms: 1_000,
            version: Version(2),
            state: 1,
            bound: Some(TransportIndex(3)),
        }),
        Control::Validate(Request { purpose: Purpose::Validate, ..request() }),
        Control::Rekey(vec![5; 1_149]),
        Control::PathReport(vec![PathQuality { delivered: true, ..PathQuality::default() }; PATHS_MAX]),
        Control::PolicyUpdate(vec![5; 300]),
        Control::JumpRequest { label: Label::new("lte") },
        Control::GoingAway,
        Control::Close,
        Control::Terminate { reason: Reason::OperatorTermination },
        Control::Done,
        Control::RekeyWanted,
    ]
}

#[test]
fn every_kind_reads_back_what_it_wrote() {
    for body in every_kind() {
        let message = Message { id: 77, body };
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
}

#[test]
fn requests_are_as_long_as_the_longest_answer() {
    for body in every_kind() {
        let kind = body.clone();
        let len = Message { id: 1, body }.encode().len();
        match kind {
            Control::Reattach(_) | Control::Prove { .. } | Control::Validate(_) | Control::Confirm { .. } => {
                assert_eq!(len, PADDED, "{kind:?}");
            }
            Control::Rekey(_) => assert_eq!(len, PADDED_REKEY),
            Control::PolicyUpdate(_) => {}
            _ => assert!(len <= PADDED, "{kind:?} is {len}"),
        }
    }
}

#[test]
fn every_truncation_of_an_unpadded_message_is_refused() {
    for body in every_kind() {
        let bytes = Message { id: 77, body: body.clone() }.encode();
        let meant = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for len in 0..meant.min(bytes.len()) {
            let cut = Message::decode(&bytes[..len]);
            assert_ne!(cut, Some(Message { id: 77, body: body.clone() }), "{body:?} cut to {len}");
        }
    }
}

#[test]
fn rubbish_behind_a_message_and_unknown_kinds_are_refused() {
    let mut bytes = Message { id: 1, body: Control::Done }.encode();
    bytes.push(1);
    assert_eq!(Message::decode(&bytes), None);
    assert_eq!(Message::decode(&[0; 9]), None);
    assert_eq!(Message::decode(&[200, 0, 0, 0, 0, 0, 0, 0, 0]), None);
}

#[test]
fn a_label_that_is_not_printable_is_refused() {
    assert!(read_label(&mut Reader::new(&[1, b'\n'])).is_none());
    assert!(read_label(&mut Reader::new(&[17; 18])).is_none());
}
