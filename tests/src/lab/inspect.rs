//! Owns what the lab reads beside the product's own answers: interface addresses and dumps of the kernel's maps.
//! Never changes anything.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path as FilePath;

use anyhow::{Context, Result};

use serde_json::Value;

use super::act::SlotSeen;
use super::netns::{Netns, run};

/// Global addresses of one interface; empty when it does not exist.
pub fn addresses(space: &Netns, interface: &str) -> Vec<String> {
    let Ok(text) = space.run(&["ip", "-o", "address", "show", "dev", interface], None) else {
        return Vec::new();
    };
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("inet"));
            words.nth(1).map(str::to_owned)
        })
        .filter(|address| !address.starts_with("fe80"))
        .collect();
    found.sort();
    found
}

/// The slots in use of a pinned `SESSIONS`, as bpftool prints them with BTF.
pub fn slots(pins: &FilePath) -> Result<Vec<SlotSeen>> {
    let map = pins.join("SESSIONS");
    let map = map.to_str().context("the pin's path is not UTF-8")?;
    let dump: Value = serde_json::from_str(&run(&["bpftool", "--json", "map", "dump", "pinned", map], None)?)?;
    let entries = dump.as_array().context("bpftool prints no list")?;
    let seen = entries.iter().filter_map(|entry| {
        let value = &entry["formatted"]["value"];
        let word = value["active"].as_u64().filter(|_| value["generation"].as_u64() != Some(0))?;
        let entry_of = usize::try_from(word >> 16 & 0xff).ok()?.checked_sub(1);
        let binding = entry_of.map(|at| &value["bindings"][at]);
        let client = binding.map_or_else(|| "nobody".into(), client);
        Some(SlotSeen { slot: entry["formatted"]["key"].as_u64()?, word, client })
    });
    Ok(seen.collect())
}

/// A binding's client.
fn client(binding: &Value) -> String {
    let mut octets = [0; 16];
    let bytes = binding["address"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    octets.iter_mut().zip(bytes).for_each(|(octet, byte)| *octet = u8::try_from(byte).unwrap_or(0));
    let port = binding["port"].as_u64().unwrap_or(0);
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::try_from(port).unwrap_or(0)).to_string()
}

/// Dumps every pinned map below `pins` and the programs attached in `space`, as bpftool prints them.
pub fn bpftool(space: &Netns, pins: &FilePath, out: &FilePath) -> Result<()> {
    let mut text = String::new();
    let mut section = |title: String, body: Result<String>| {
        // A pin that is no map, or a map that vanished meanwhile, is part of the picture.
        let body = body.unwrap_or_else(|error| format!("{error:#}\n"));
        text.push_str(&format!("### {title}\n{body}\n"));
    };
    section("bpftool net".into(), space.run(&["bpftool", "net", "show"], None));
    let mut directories = vec![pins.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if let Some(name) = path.to_str() {
                let dump = run(&["bpftool", "map", "dump", "pinned", name], None);
                section(name.to_owned(), dump);
            }
        }
    }
    fs::write(out, text).with_context(|| format!("write {}", out.display()))
}
