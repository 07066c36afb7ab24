//! The commented configuration files, and the reference page that is made of them.
//!
//! Owns both templates as the one place where a key is explained: `init` and `peer add` fill them, docs/config.md
//! is printed from them. Must never hold a default that the reader does not have: a test compares.

use super::gateway::DEFAULT_PORT;
use super::policy::SHIPPED;
use jvpn_common::session::policy::{KEYS, Policy};
use std::fmt::Write as _;
use zeroize::Zeroizing;

const GATEWAY: &str = include_str!("gateway.toml.in");
const RELAY: &str = include_str!("relay.toml.in");
const CLIENT: &str = include_str!("client.toml.in");

/// What a fresh gateway's file says.
#[derive(Clone, Debug)]
pub struct GatewayValues {
    /// Its name.
    pub name: String,
    /// Name of its key file.
    pub private_key_file: String,
    /// Interfaces clients arrive on.
    pub interfaces: Vec<String>,
    /// Inner addresses with prefixes.
    pub addresses: Vec<String>,
    /// UDP port.
    pub listen: u16,
}

/// What a relay's file says.
#[derive(Clone, Debug)]
pub struct RelayValues {
    /// Its name.
    pub name: String,
    /// Name of its key file.
    pub private_key_file: String,
    /// Interfaces clients and owners arrive on.
    pub interfaces: Vec<String>,
    /// The owner's public key.
    pub owner_key: String,
    /// The owner's UDP address.
    pub owner_address: String,
}

/// What a client's file says.
#[derive(Debug)]
pub struct ClientValues {
    /// Its name.
    pub name: String,
    /// Its private key, to be written into the file; else the file names `client.key`.
    pub private_key: Option<Zeroizing<String>>,
    /// The shared key, to be written into the file.
    pub preshared_key: Option<Zeroizing<String>>,
    /// What goes through the tunnel.
    pub routes: Vec<String>,
    /// The gateway's public key.
    pub public_key: String,
    /// Where it answers.
    pub endpoints: Vec<String>,
}

fn list(items: &[String]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// A fresh gateway's file.
#[must_use]
pub fn gateway(values: &GatewayValues) -> String {
    let text = GATEWAY
        .replace("{name}", &values.name)
        .replace("{private_key_file}", &values.private_key_file)
        .replace("{interfaces}", &list(&values.interfaces))
        .replace("{addresses}", &list(&values.addresses))
        .replace("{peer_addresses}", "[\"10.77.0.17/32\"]");
    if values.listen == DEFAULT_PORT {
        text
    } else {
        text.replace("#listen = 51821", &format!("listen = {}", values.listen))
    }
}

/// A relay's file.
#[must_use]
pub fn relay(values: &RelayValues) -> String {
    RELAY
        .replace("{name}", &values.name)
        .replace("{private_key_file}", &values.private_key_file)
        .replace("{interfaces}", &list(&values.interfaces))
        .replace("{owner_name}", "owner-1")
        .replace("{owner_key}", &values.owner_key)
        .replace("{owner_address}", &values.owner_address)
}

/// A client's file.
#[must_use]
pub fn client(values: &ClientValues) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(CLIENT.len() + 512));
    let inline = |key: &Option<_>| if key.is_some() { "" } else { "#" };
    let public = CLIENT
        .replace("{name}", &values.name)
        .replace("{key_inline}", inline(&values.private_key))
        .replace("{key_file}", if values.private_key.is_some() { "#" } else { "" })
        .replace("{psk_inline}", inline(&values.preshared_key))
        .replace("{private_key_file}", "client.key")
        .replace("{routes}", &list(&values.routes))
        .replace("{public_key}", &values.public_key)
        .replace("{endpoints}", &list(&values.endpoints));
    // The secrets last, into the one text that is wiped.
    let mut rest = public.as_str();
    for (mark, key) in [("{private_key}", &values.private_key), ("{preshared_key}", &values.preshared_key)] {
        let Some((before, after)) = rest.split_once(mark) else { continue };
        text.push_str(before);
        text.push_str(key.as_ref().map_or("…", |key| key.as_str()));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// One peer's file in `peers.d`.
#[must_use]
pub fn peer(
    name: &str,
    public_key: &str,
    preshared_key_file: Option<&str>,
    addresses: &[String],
    routes: &[String],
    policy: &str,
) -> String {
    let mut text = format!("[[peer]]\nname = \"{name}\"\npublic_key = \"{public_key}\"\n");
    if let Some(file) = preshared_key_file {
        let _ = writeln!(text, "preshared_key_file = \"{file}\"");
    }
    let _ = writeln!(text, "addresses = {}", list(addresses));
    if !routes.is_empty() {
        let _ = writeln!(text, "routes = {}", list(routes));
    }
    let _ = writeln!(text, "policy = \"{policy}\"");
    text
}

/// A key as a template explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    table: String,
    key: String,
    value: String,
    optional: bool,
    meaning: String,
}

fn entries(template: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut meaning = String::new();
    let mut table = String::new();
    for line in template.lines() {
        let marks = ["{key_inline}", "{key_file}", "{psk_inline}"];
        let mark = marks.into_iter().find_map(|mark| line.strip_prefix(mark));
        let bare = mark.unwrap_or_else(|| line.trim_start_matches('#'));
        if let Some(comment) = line.strip_prefix("# ") {
            if !meaning.is_empty() {
                meaning.push(' ');
            }
            meaning.push_str(comment);
        } else if bare.starts_with('[') {
            bare.clone_into(&mut table);
            meaning.clear();
        } else if let Some((key, value)) = bare.split_once(" = ") {
            let optional = mark.is_some() || line.starts_with('#');
            let entry = Entry {
                table: table.clone(),
                key: key.into(),
                value: value.into(),
                optional,
                meaning: std::mem::take(&mut meaning),
            };
            entries.push(entry);
        } else {
            meaning.clear();
        }
    }
    entries
}

/// docs/config.md.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\nGenerated from the commented files that `jvpn-ctl init` writes; a test keeps it so. Unknown keys are refused.\n\
         Relative paths are relative to the file. Every place can also be given by flag, then by environment (`JVPN_CONFIG`,\n\
         `JVPN_STATE_DIR`, `JVPN_RUN_DIR`, `JVPN_PIN_ROOT`), which both come before the file. `jvpn-ctl check FILE` shows what is wrong\n\
         with its line and column.\n",
    );
    for (name, template) in [("gateway.toml", GATEWAY), ("relay.toml", RELAY), ("client.toml", CLIENT)] {
        let _ = writeln!(page, "\n## `{name}`");
        let mut table = String::new();
        for entry in entries(template) {
            if entry.table != table {
                table.clone_from(&entry.table);
                let _ = writeln!(page, "\n### `{table}`\n\n| key | default | meaning |\n|---|---|---|");
            }
            let shown = if entry.value.contains('{') || entry.value.contains('…') {
                String::new()
            } else {
                format!("`{}`", entry.value)
            };
            let default = match (entry.optional, shown.is_empty()) {
                (false, _) => "required".to_owned(),
                (true, true) => "none".to_owned(),
                (true, false) => shown,
            };
            let meaning = entry.meaning.replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {default} | {meaning} |", entry.key);
        }
    }
    page.push_str(
        "\nValues shown for keys of `[[peer]]`, `[[transport]]` and `[telemetry]` without a default are examples.\n",
    );
    policy_tables(&mut page);
    page
}

fn policy_tables(page: &mut String) {
    page.push_str(
        "\n## Policy\n\nA peer names a class; a class starts from a shipped one and changes what it says. Values that contradict each other are\n\
         refused with both keys. Times carry a unit (`30ms`, `5s`, `15m`, `24h`), shares a percent sign.\n\n\
         | key | field | range | meaning |\n|---|---|---|---|\n",
    );
    let values = Policy::field().values();
    for (key, (_, value)) in KEYS.iter().zip(&values) {
        let _ = writeln!(page, "| `{}` | {value} | {} to {} | {} |", key.name, (key.min)(), (key.max)(), key.meaning);
    }
    page.push_str("\nThe other shipped classes differ from `field` in:\n\n| class | key | value |\n|---|---|---|\n");
    for name in SHIPPED.iter().filter(|name| **name != "field") {
        let other = Policy::shipped(name).unwrap_or_default().values();
        for ((key, value), (_, field)) in other.iter().zip(&values).filter(|(own, field)| own.1 != field.1) {
            let _ = writeln!(page, "| `{name}` | `{key}` | {value} (field: {field}) |");
        }
    }
}

#[cfg(test)]
mod tests;
