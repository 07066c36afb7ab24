//! `maps`: the kernel's maps for people.
//!
//! Owns the tables. What a map holds and what of it may be shown is [`crate::inspect`]'s. Must never print a key.

use super::error::{CliError, Kind};
use super::{Context, output, plane};
use crate::api::model::Envelope;
use crate::config::Role;
use crate::dataplane::pins::{PIN_ROOT, Pins};
use crate::inspect::model::{BindingView, ConfigView, EndpointView, MapUse, Maps};
use crate::inspect::view::{self, Filter};
use crate::inspect::{Picture, dump, live};
use clap::builder::PossibleValuesParser;
use jvpn_common::abi::map;
use std::path::PathBuf;

/// Show the kernel program's maps: sessions, bindings, counters
///
/// Reads the pinned maps as they are now, which needs root and neither a daemon nor its configuration. Without a name:
/// all of them, how full they are, and what was dropped. KEYS is never shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Find a session by its client's address: jvpn-ctl maps SESSIONS --address 192.0.2.7")]
pub(super) struct Args {
    /// One map
    #[arg(value_parser = PossibleValuesParser::new(map::ALL), ignore_case = true, hide_possible_values = false)]
    name: Option<String>,
    /// Sessions bound to (or draining from) this client's address, with or without a port
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<(std::net::IpAddr, u16)>,
    /// The session in this slot
    #[arg(long, value_name = "SLOT")]
    slot: Option<u32>,
    /// Sessions by the start of their id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Write what `trace` needs to a file that only its owner may read (mode 0600). It names clients' addresses; keys
    /// are not in it, so that `trace` cannot judge tags by it
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Write the steering keys too, in clear. Who has them can send junk as far as the gateway's socket, no further
    #[arg(long, requires = "dump")]
    with_keys: bool,
}

fn address(text: &str) -> Result<(std::net::IpAddr, u16), String> {
    view::address(text).ok_or_else(|| "an address, or an address and a port: 192.0.2.7, [2001:db8::7]:4000".to_owned())
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let (pins, picture) = picture(context)?;
    if let Some(path) = &args.dump {
        let written = if args.with_keys { picture.clone() } else { picture.clone().without_secrets() };
        dump::write(&written, path).map_err(|error| CliError::io(&path.display().to_string(), &error))?;
        let keys = if args.with_keys { "with the steering keys: treat it as one" } else { "without keys" };
        output::talk(&format!("written to {}, {keys}", path.display()));
        return Ok(());
    }
    let filter = Filter { address: args.address, slot: args.slot, session: args.session };
    let filtered = filter.address.is_some() || filter.slot.is_some() || filter.session.is_some();
    let name = args.name.map(|name| name.to_ascii_uppercase());
    let name = name.or_else(|| filtered.then(|| map::SESSIONS.to_owned()));
    let shown = choose(&pins, &picture, name.as_deref(), &filter);
    let none = shown.sessions.as_ref().is_some_and(Vec::is_empty);
    if filtered && none {
        return Err(
            CliError::new(Kind::NotFound, "no session in the maps fits").hint("jvpn-ctl maps SESSIONS lists them")
        );
    }
    if context.json {
        return output::value(&Envelope::from(shown));
    }
    output::data(&text(&shown, name.as_deref()))
}

/// Where the pins are: as told, else as the gateway's file says where there is one, else the usual place.
fn pins(context: &Context) -> Result<Pins, CliError> {
    if let Some(root) = &context.places.pin_root {
        return Ok(Pins::below(root));
    }
    if context.places.config_of(Role::Gateway).exists() {
        return Ok(Pins::below(plane::node(context)?.paths.pin_root));
    }
    Ok(Pins::below(PIN_ROOT))
}

/// Reads the pinned maps.
pub(super) fn picture(context: &Context) -> Result<(Pins, Picture), CliError> {
    plane::ready()?;
    let pins = pins(context)?;
    if !pins.exist() {
        let nothing = format!("nothing is loaded: there are no maps in {}", pins.root().display());
        return Err(CliError::new(Kind::NotFound, nothing)
            .hint("load first: jvpn-ctl load IFACE")
            .hint("or say where the maps are: --pin-root DIR"));
    }
    let picture = live::picture(&pins)?;
    Ok((pins, picture))
}

/// The document with the sections that were asked for; all of them without a name.
fn choose(pins: &Pins, picture: &Picture, name: Option<&str>, filter: &Filter) -> Maps {
    let wanted = |names: &[&str]| name.is_none_or(|name| names.contains(&name));
    Maps {
        pin_root: pins.root().display().to_string(),
        taken: picture.taken.clone(),
        tick: picture.tick,
        interfaces: pins.interfaces(),
        maps: view::uses(picture),
        config: wanted(&[map::CONFIG]).then(|| view::config(picture)),
        sessions: wanted(&[map::SESSIONS, map::SESSION_INFO]).then(|| view::sessions(picture, filter)),
        locators: wanted(&[map::LOCATORS]).then(|| view::locators(picture, filter)),
        paths: wanted(&[map::PATHS]).then(|| view::paths(picture, filter)),
        traffic: wanted(&[map::TRAFFIC]).then(|| view::traffic(picture, filter)),
        verdicts: wanted(&[map::VERDICTS]).then(|| view::verdicts(picture)),
        owners: wanted(&[map::OWNERS]).then(|| view::owners(picture)),
        hops: wanted(&[map::HOPS]).then(|| view::hops(picture)),
        buckets: wanted(&[map::BUCKETS]).then(|| view::buckets(picture)),
    }
}

fn text(maps: &Maps, name: Option<&str>) -> String {
    let Some(name) = name else { return overview(maps) };
    let use_of = maps.maps.iter().find(|map| map.name == name);
    let only_use = || {
        let used = use_of.and_then(|map| map.used);
        format!("{name}: {}, {} in use", use_of.map_or("", |map| map.holds), output::or_dash(used))
    };
    match name {
        map::CONFIG => maps.config.as_ref().map_or_else(only_use, config),
        map::SESSIONS => sessions(maps),
        map::SESSION_INFO => info(maps),
        map::LOCATORS => locators(maps),
        map::PATHS => paths(maps),
        map::TRAFFIC => traffic(maps),
        map::VERDICTS => verdicts(maps),
        map::BUCKETS => buckets(maps),
        map::OWNERS => owners(maps),
        map::HOPS => hops(maps),
        _ => only_use(),
    }
}

fn overview(maps: &Maps) -> String {
    let interfaces = if maps.interfaces.is_empty() { "no interface".to_owned() } else { maps.interfaces.join(", ") };
    let row = |map: &MapUse| {
        [map.name.clone(), output::or_dash(map.used), output::or_dash(map.entries), map.holds.to_owned()]
    };
    let table = output::table(["map", "used", "of", "holds"], maps.maps.iter().map(row));
    let told = maps.config.as_ref().map(config).unwrap_or_default();
    format!(
        "maps in {}, program on {interfaces}\n{told}\n\n{table}\n\n{}\n\n{}",
        maps.pin_root,
        sessions(maps),
        verdicts(maps)
    )
}

fn config(config: &ConfigView) -> String {
    if config.role == "none" {
        return "not configured: no gateway has filled it in, everything passes".to_owned();
    }
    let alive = |ms: &Option<i64>| match ms {
        Some(ms) if *ms >= 0 => format!("alive for {ms} ms"),
        Some(ms) => format!("NOT ALIVE since {} ms", ms.saturating_neg()),
        None => "NOT ALIVE".to_owned(),
    };
    let workers: Vec<_> = config.alive_for_ms.iter().map(alive).collect();
    let limit = match config.handshake_rate {
        0 => "no limit on handshakes".to_owned(),
        rate => format!("handshakes {rate}/s a source, {}/s a processor", config.handshake_total_rate),
    };
    format!(
        "{} on port {}, incarnation {}, owner epoch {}, room for {} sessions, workers: {}, {limit}",
        config.role,
        config.port,
        config.incarnation,
        config.owner_epoch,
        config.max_sessions,
        workers.join(", ")
    )
}

fn bound(binding: Option<&BindingView>) -> String {
    output::or_dash(binding.map(|binding| {
        let drains = match binding.drains_for_ms {
            Some(ms) if ms >= 0 => format!(", {ms} ms left"),
            Some(ms) => format!(", over since {} ms", ms.saturating_neg()),
            None => String::new(),
        };
        format!("{} (entry {}, k {}{drains})", binding.remote, binding.entry, binding.k)
    }))
}

fn sessions(maps: &Maps) -> String {
    let rows = maps.sessions.iter().flatten().map(|session| {
        let state = session.state.map_or_else(|| "-".to_owned(), str::to_owned);
        [
            session.slot.to_string(),
            session.generation.to_string(),
            output::short(&session.session_id).to_owned(),
            if session.pending { format!("{state}, pending") } else { state },
            session.seq.to_string(),
            bound(session.active.as_ref()),
            bound(session.draining.as_ref()),
            session.owner.map_or_else(|| "self".to_owned(), |owner| owner.to_string()),
            session.locators.to_string(),
            session.data_packets.to_string(),
        ]
    });
    let headings =
        ["slot", "generation", "session", "state", "stores", "active", "draining", "owner", "locators", "data"];
    or_none(output::table(headings, rows), maps.sessions.iter().flatten().count(), "no session")
}

/// A table, or a word that there is nothing to show in one.
fn or_none(table: String, rows: usize, nothing: &str) -> String {
    if rows == 0 { nothing.to_owned() } else { table }
}

fn info(maps: &Maps) -> String {
    let rows = maps.sessions.iter().flatten().map(|session| {
        let state = session.state.map_or_else(|| "-".to_owned(), str::to_owned);
        [session.slot.to_string(), session.session_id.clone(), state, session.state_version.to_string()]
    });
    let table = output::table(["slot", "session", "state", "version"], rows);
    or_none(table, maps.sessions.iter().flatten().count(), "no session")
}

fn locators(maps: &Maps) -> String {
    let rows = maps.locators.iter().flatten().map(|locator| {
        let stale = if locator.stale { "stale" } else { "" };
        [
            locator.locator.clone(),
            locator.slot.to_string(),
            locator.generation.to_string(),
            locator.k.to_string(),
            stale.to_owned(),
        ]
    });
    let table = output::table(["locator", "slot", "generation", "k", ""], rows);
    or_none(table, maps.locators.iter().flatten().count(), "no locator")
}

fn paths(maps: &Maps) -> String {
    let rows = maps.paths.iter().flatten().map(|path| {
        [
            path.slot.to_string(),
            path.k.to_string(),
            path.probes.to_string(),
            path.highest.to_string(),
            path.of_last_64.to_string(),
            path.data.to_string(),
        ]
    });
    let table = output::table(["slot", "k", "probes", "highest", "of the last 64", "data"], rows);
    or_none(table, maps.paths.iter().flatten().count(), "nothing was seen of any transport")
}

fn traffic(maps: &Maps) -> String {
    let rows = maps.traffic.iter().flatten().map(|traffic| {
        [
            traffic.slot.to_string(),
            traffic.data_packets.to_string(),
            output::bytes(traffic.data_bytes),
            traffic.unbound.to_string(),
            traffic.forged.to_string(),
            traffic.echoes.to_string(),
            traffic.notices.to_string(),
            traffic.down_packets.to_string(),
            output::bytes(traffic.down_bytes),
            traffic.slow_path.to_string(),
        ]
    });
    let headings =
        ["slot", "data", "bytes", "unbound", "forged", "echoes", "notices", "down", "down bytes", "slow path"];
    let table = output::table(headings, rows);
    or_none(table, maps.traffic.iter().flatten().count(), "nothing was counted for any session")
}

fn verdicts(maps: &Maps) -> String {
    let counted: Vec<_> = maps.verdicts.iter().flatten().filter(|verdict| verdict.packets != 0).collect();
    let rows = counted.iter().map(|verdict| {
        [
            verdict.number.to_string(),
            verdict.name.unwrap_or("?").to_owned(),
            verdict.class.unwrap_or("?").to_owned(),
            verdict.packets.to_string(),
            verdict.meaning.to_owned(),
        ]
    });
    or_none(output::table(["", "verdict", "class", "packets", "meaning"], rows), counted.len(), "no packet yet")
}

fn endpoint(end: Option<&EndpointView>) -> String {
    output::or_dash(end.map(|end| {
        let mtu = end.mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
        format!("{} (hop {}{mtu})", end.address, end.hop)
    }))
}

/// What is added to an entry that was read in the middle of a store.
const fn whole(written: bool) -> &'static str {
    if written { "being written" } else { "" }
}

fn owners(maps: &Maps) -> String {
    let rows = maps.owners.iter().flatten().map(|owner| {
        let lease = match owner.lease_for_ms {
            Some(ms) if ms >= 0 => format!("{ms} ms left"),
            Some(ms) => format!("ENDED {} ms ago", ms.saturating_neg()),
            None => "NONE".to_owned(),
        };
        [
            owner.index.to_string(),
            lease,
            endpoint(owner.v4.as_ref()),
            endpoint(owner.v6.as_ref()),
            owner.incarnation.to_string(),
            owner.owner_epoch.to_string(),
            whole(owner.written).to_owned(),
        ]
    });
    let table = output::table(["owner", "lease", "IPv4", "IPv6", "incarnation", "epoch", ""], rows);
    or_none(table, maps.owners.iter().flatten().count(), "no owner: this is no relay, or none has connected")
}

fn hops(maps: &Maps) -> String {
    let rows = maps.hops.iter().flatten().map(|hop| {
        let (to, from) = (hop.destination_mac.clone(), hop.source_mac.clone());
        let [to, from] = if hop.resolved { [to, from] } else { ["not resolved".to_owned(), "-".to_owned()] };
        [
            hop.id.to_string(),
            hop.source.clone(),
            hop.ifindex.to_string(),
            output::or_dash(hop.mtu),
            to,
            from,
            whole(hop.written).to_owned(),
        ]
    });
    let table = output::table(["hop", "own address", "interface", "MTU", "to", "from", ""], rows);
    or_none(table, maps.hops.iter().flatten().count(), "no way out: this is no relay, or it serves nobody yet")
}

fn buckets(maps: &Maps) -> String {
    let rows = maps.buckets.iter().flatten().map(|bucket| {
        let whose = bucket.processor.map_or_else(
            || "sources with this hash".to_owned(),
            |processor| format!("everybody, processor {processor}"),
        );
        [bucket.index.to_string(), whose, bucket.tokens.to_string(), format!("{} ms ago", bucket.ago_ms)]
    });
    let table = output::table(["bucket", "of", "handshakes left", "as of"], rows);
    or_none(table, maps.buckets.iter().flatten().count(), "no handshake was counted: nobody came, or there is no limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Secrets;
    use jvpn_common::abi::{
        ActiveWord, Binding, Config, HOP_RESOLVED, Hop, LAYOUT_HASH, LocatorEntry, Owner, OwnerEndpoint, ROLE_GATEWAY,
        SteeringKeys, mapped,
    };

    /// Slot 3, bound to 192.0.2.7, draining from 2001:db8::7; two locators lead there and one is of a session before it.
    fn picture() -> Picture {
        let mut config = Config { layout: LAYOUT_HASH, role: ROLE_GATEWAY, port: 51_821, hz: 250, ..Config::default() };
        (config.workers, config.max_sessions, config.bucket_seed) = (1, 8, [0x5eed_5eed, 2]);
        config.alive_until[0] = 1_125;
        let binding = |address: &str, port, k, drain_until| Binding {
            address: mapped(address.parse().expect("an address")),
            port,
            k,
            drain_until,
            ..Binding::default()
        };
        let mut session = [0; 16];
        (session[0], session[1]) = (ActiveWord::new(2, 1, 2).0, 7);
        session[2..6].copy_from_slice(&binding("2001:db8::7", 1_111, 0, 1_050).to_words());
        session[6..10].copy_from_slice(&binding("192.0.2.7", 2_222, 1, 0).to_words());
        let locator = |generation, k| LocatorEntry { slot: 3, generation, k };
        Picture {
            tick: 1_000,
            config: config.to_words(),
            locators: [(0xa, locator(7, 0)), (0xb, locator(7, 1)), (0xc, locator(6, 0))].into(),
            sessions: [(3, session)].into(),
            info: [(3, [0x0807_0605_0403_0201, 0, 9, 1, 2 | 7 << 32])].into(),
            owners: [(0, owner().to_words())].into(),
            hops: [(5, hop().to_words())].into(),
            verdicts: [(41, vec![2, 3]), (63, vec![1])].into(),
            secrets: Some(Secrets { keys: [(3, SteeringKeys { up: [0xdead_beef, 1], down: [2, 3] })].into() }),
            ..Picture::default()
        }
    }

    fn owner() -> Owner {
        let v6 = OwnerEndpoint {
            address: mapped("2001:db8::1".parse().expect("an address")),
            port: 51_821,
            hop: 5,
            mtu: 1_400,
            reserved: 0,
        };
        Owner { sequence: 2, alive_until: 900, v6, incarnation: 3, owner_epoch: 4, ..Owner::default() }
    }

    /// In the middle of a store.
    fn hop() -> Hop {
        let source = mapped("198.51.100.2".parse().expect("an address"));
        let (destination_mac, source_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        Hop { sequence: 3, source, ifindex: 7, mtu: 0, flags: HOP_RESOLVED, destination_mac, source_mac, reserved: 0 }
    }

    fn shown(name: Option<&str>, filter: &Filter) -> (String, serde_json::Value) {
        let maps = choose(&Pins::below("/p"), &picture(), name, filter);
        (text(&maps, name), serde_json::to_value(&maps).expect("JSON"))
    }

    #[test]
    fn a_session_is_shown_with_both_bindings_and_what_leads_to_it() {
        let (text, json) = shown(Some(map::SESSIONS), &Filter::default());
        let active = "192.0.2.7:2222 (entry 2, k 1)";
        let draining = "[2001:db8::7]:1111 (entry 1, k 0, 200 ms left)";
        for part in ["3     7", "01020304", "ATTACHED", active, draining] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(json["sessions"][0]["locators"], 2);
        assert_eq!(json["sessions"][0]["draining"]["drains_for_ms"], 200);
        assert!(json.get("locators").is_none(), "only what was asked for");
    }

    #[test]
    fn a_session_is_found_by_either_address_by_slot_and_by_id_and_by_nothing_else() {
        let by = |address: &str| Filter { address: view::address(address), ..Filter::default() };
        let found = |filter: &Filter| view::sessions(&picture(), filter).len();
        for address in ["192.0.2.7", "192.0.2.7:2222", "2001:db8::7", "[2001:db8::7]:1111", "::ffff:192.0.2.7"] {
            assert_eq!(found(&by(address)), 1, "{address}");
        }
        for address in ["192.0.2.8", "192.0.2.7:1111", "2001:db8::8", "::"] {
            assert_eq!(found(&by(address)), 0, "{address}");
        }
        assert_eq!(found(&Filter { slot: Some(3), ..Filter::default() }), 1);
        assert_eq!(found(&Filter { slot: Some(0), ..Filter::default() }), 0);
        assert_eq!(found(&Filter { session: Some("0102".to_owned()), ..Filter::default() }), 1);
        assert_eq!(found(&Filter { session: Some("02".to_owned()), ..Filter::default() }), 0);
    }

    #[test]
    fn no_map_shows_a_key_or_the_seed() {
        for name in map::ALL.map(Some).into_iter().chain([None]) {
            let (text, json) = shown(name, &Filter::default());
            for secret in ["dead", "3735928559", "5eed5eed", "1592614637"] {
                assert!(!text.contains(secret) && !json.to_string().contains(secret), "{secret} in {name:?}: {text}");
            }
            assert!(!text.is_empty(), "{name:?}");
        }
        assert_eq!(shown(Some(map::KEYS), &Filter::default()).0, "KEYS: slot -> steering keys (never shown), 1 in use");
    }

    #[test]
    fn all_processors_count_together_and_an_unknown_verdict_is_shown_by_its_number() {
        let (text, json) = shown(Some(map::VERDICTS), &Filter::default());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("41  FORGED_TAG  drop   5"), "{text}");
        assert!(lines[2].starts_with("63  ?"), "{text}");
        let all = jvpn_common::verdict::Verdict::ALL.len() + 1;
        assert_eq!((lines.len(), json["verdicts"].as_array().map(Vec::len)), (3, Some(all)));
    }

    #[test]
    fn the_overview_says_whether_the_worker_is_alive() {
        let (text, _) = shown(None, &Filter::default());
        assert!(text.contains("gateway on port 51821") && text.contains("alive for 500 ms"), "{text}");
        assert!(text.contains("LOCATORS      3     48"), "{text}");
    }
    #[test]
    fn a_relays_owners_and_ways_are_shown_with_lease_and_what_is_being_written() {
        let (text, json) = shown(Some(map::OWNERS), &Filter::default());
        let line = text.lines().nth(1).expect("an owner");
        assert!(line.contains("ENDED 400 ms ago") && line.contains("[2001:db8::1]:51821 (hop 5, MTU 1400)"), "{text}");
        assert!(json["owners"][0]["v4"].is_null() && json["owners"][0]["written"] == false, "{json}");
        let (text, json) = shown(Some(map::HOPS), &Filter::default());
        let line = text.lines().nth(1).expect("a way");
        assert!(line.contains("198.51.100.2") && line.contains("02:00:00:00:00:01"), "{text}");
        assert!(line.ends_with("being written") && json["hops"][0]["written"] == true, "{text}");
    }
}
