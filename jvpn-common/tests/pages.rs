//! The reference pages are what the tables say.
//!
//! Owns the comparison of `docs/` with the generators. Must never pass on a page that is missing.

#![cfg(feature = "engine")]
#![allow(clippy::disallowed_methods, reason = "a test of files; the core itself stays pure")]

use std::path::PathBuf;

use jvpn_common::session::page;

/// Compares a page, or writes it when `JVPN_BLESS=1`.
fn same(name: &str, make: impl Fn(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = make(&found);
    if found == wanted {
        return;
    }
    if std::env::var_os("JVPN_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, wanted).expect("the page can be written");
        return;
    }
    let line = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count() + 1;
    panic!(
        "docs/{name} is not what the tables say (first difference in line {line}); read the change, then run\n    \
         JVPN_BLESS=1 cargo test -p jvpn-common --features engine --test pages"
    );
}

#[test]
fn the_page_of_reasons_is_what_explain_says() {
    same("reasons.md", |_| page::reasons());
}

#[test]
fn the_lifecycle_page_holds_the_table_the_graph_the_timers_and_the_policy() {
    same("lifecycle.md", |found| {
        let blocks = [
            ("transitions", page::transitions()),
            ("graph", page::graph()),
            ("timers", page::timers()),
            ("policy", page::policy()),
        ];
        blocks.iter().fold(found.to_owned(), |page, (block, text)| {
            page::fill(&page, block, text).unwrap_or_else(|| panic!("docs/lifecycle.md has no block `{block}`"))
        })
    });
}

#[test]
fn the_pages_of_maps_and_inspection_hold_every_verdict() {
    for (name, text) in [("maps.md", page::verdicts()), ("inspect.md", page::verdict_advice())] {
        same(name, |found| {
            page::fill(found, "verdicts", &text).unwrap_or_else(|| panic!("docs/{name} has no block `verdicts`"))
        });
    }
}

#[test]
fn every_map_is_shown_on_the_page_of_inspection_and_described_on_the_page_of_maps() {
    for name in ["inspect.md", "maps.md"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let page = std::fs::read_to_string(path).expect("the page is there");
        for map in jvpn_common::abi::map::ALL {
            assert!(page.contains(map), "docs/{name} says nothing of {map}");
        }
    }
}

#[test]
fn a_page_without_the_block_is_not_filled() {
    assert_eq!(page::fill("nothing", "graph", "x"), None);
    let text = "a\n<!-- begin generated: g -->\nold\n<!-- end generated: g -->\nb";
    let filled = page::fill(text, "g", "new\n").expect("it has the block");
    assert_eq!(filled, text.replace("old", "new"));
}
