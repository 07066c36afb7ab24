//! A checkpoint: what a node says of its record up to one line, to be signed and kept elsewhere.
//!
//! Owns its text and which bytes of it are signed. Must never sign or verify: the curve is the caller's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Hash, bounded, wide};

/// What a text of this form starts with: a signature of anything else can never be taken for one of a checkpoint.
const SCHEMA: &str = "jvpn.checkpoint/1";

/// Between the signed bytes and the signature.
const SIGNATURE: &str = ",\"signature\":\"";

/// The last line of a record at some time. Whoever holds one that is signed can show later that a line before it was
/// changed, removed or added: the hash of this line depends on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose record.
    pub node: String,
    /// Number of its last record then.
    pub seq: u64,
    /// Hash of that line.
    pub head: Hash,
    /// When it was signed, wall clock.
    pub ts: String,
    /// The Ed25519 public key that verifies it.
    pub key: [u8; 32],
}

/// A checkpoint as it was read; believe it only after its signature was verified over `signed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The bytes the signature is over.
    pub signed: &'a str,
    /// Ed25519.
    pub signature: [u8; 64],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    schema: String,
    node: String,
    #[serde(with = "wide")]
    seq: u64,
    head: String,
    ts: String,
    key: String,
    #[serde(default, skip_serializing)]
    signature: String,
}

impl Checkpoint {
    /// The bytes to sign: its JSON text up to the signature.
    #[must_use]
    pub fn to_sign(&self) -> String {
        let text = Text {
            schema: SCHEMA.into(),
            node: bounded(&self.node),
            seq: self.seq,
            head: self.head.to_string(),
            ts: bounded(&self.ts),
            key: STANDARD.encode(self.key),
            signature: String::new(),
        };
        let mut text = serde_json::to_string(&text).expect("a checkpoint has text keys only");
        text.pop();
        text
    }

    /// The line, without the line feed.
    #[must_use]
    pub fn line(signed: &str, signature: &[u8; 64]) -> String {
        format!("{signed}{SIGNATURE}{}\"}}", STANDARD.encode(signature))
    }

    /// Reads a line; none if it is cut or none of ours.
    #[must_use]
    pub fn read(line: &str) -> Option<Signed<'_>> {
        let text: Text = serde_json::from_str(line).ok().filter(|text: &Text| text.schema == SCHEMA)?;
        let signature = STANDARD.decode(&text.signature).ok()?.try_into().ok()?;
        let key = STANDARD.decode(&text.key).ok()?.try_into().ok()?;
        let head = Hash::from_hex(&text.head)?;
        let checkpoint = Self { node: text.node, seq: text.seq, head, ts: text.ts, key };
        let (signed, _) = line.split_once(SIGNATURE)?;
        // One form only: what was signed is what is read.
        (checkpoint.to_sign() == signed && Self::line(signed, &signature) == line).then_some(Signed {
            checkpoint,
            signed,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let (node, ts) = ("gw \"1\"".into(), "2026-01-02T03:04:05.000000006Z".into());
        Checkpoint { node, seq: 1 << 60, head: Hash([7; 32]), ts, key: [9; 32] }
    }

    #[test]
    fn a_checkpoint_reads_back_and_its_number_is_text() {
        let signed = checkpoint().to_sign();
        let line = Checkpoint::line(&signed, &[3; 64]);
        let read = Checkpoint::read(&line).expect("reads");
        assert_eq!(read, Signed { checkpoint: checkpoint(), signed: &signed, signature: [3; 64] });
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&value["schema"], &value["seq"]), (&SCHEMA.into(), &(1_u64 << 60).to_string().into()));
    }

    #[test]
    fn another_form_of_the_same_words_is_no_checkpoint() {
        let line = Checkpoint::line(&checkpoint().to_sign(), &[3; 64]);
        for cut in 0..line.len() {
            assert_eq!(Checkpoint::read(&line[..cut]), None, "cut at {cut}");
        }
        for (from, to) in [
            ("{\"schema\"", "{ \"schema\""),
            ("checkpoint/1", "checkpoint/2"),
            ("\"node\"", "\"nodes\""),
            ("0707", "070g"),
            ("\"}", "\",\"more\":1}"),
        ] {
            let changed = line.replacen(from, to, 1);
            assert!(changed != line && Checkpoint::read(&changed).is_none(), "{changed}");
        }
    }
}
