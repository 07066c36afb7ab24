//! Owns the proof that each house rule notices its breach and that the workspace follows all of them.
//! Must never rely on the order of the rules.

use super::source::{code_only, product_lines};
use super::*;

fn house() -> House {
    House { paths: ["docs/style.md", "README.md"].map(str::to_owned).into(), verbs: vec!["test", "clean-lab"] }
}

fn told(path: &str, text: &str) -> String {
    let file = File { path: path.to_owned(), text: text.to_owned(), executable: false };
    rules::check(&file, &house()).join("\n")
}

const TOP: &str = "//! Owns an example and must never do anything else.\n";

fn told_code(path: &str, code: &str) -> String {
    told(path, &format!("{TOP}{code}"))
}

#[test]
fn this_workspace_follows_the_house_rules() {
    let (files, house) = read(&paths::root()).expect("the workspace is readable");
    assert!(files.len() > 20, "only {} files were found", files.len());
    let broken = violations(&files, &house);
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_file_without_its_two_answers_is_noticed() {
    assert!(told("a/src/x.rs", "fn main() {}\n").contains("begins with"));
    assert!(told("a/src/x.rs", "//! short\n").contains("begins with"));
    assert_eq!(told_code("a/src/x.rs", "fn main() {}\n"), "");
}

#[test]
fn a_file_of_two_concepts_is_noticed_and_its_tests_do_not_count() {
    let long = "const A: u8 = 1;\n".repeat(400);
    assert!(told_code("a/src/x.rs", &long).contains("401 lines"));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(100));
    assert_eq!(told_code("a/src/x.rs", &format!("{}{tests}", "const A: u8 = 1;\n".repeat(390))), "");
    let many = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(told_code("a/src/x.rs", &many).contains("inline tests"));
}

#[test]
fn unfinished_work_is_noticed_but_a_text_about_it_is_not() {
    assert!(told_code("a/src/x.rs", concat!("fn a() { to", "do!() }")).contains("for later"));
    assert!(told_code("a/src/x.rs", concat!("#[ig", "nore]\nfn a() {}")).contains("for later"));
    assert!(told_code("a/src/x.rs", concat!("// FIX", "ME later")).contains("unfinished"));
    assert_eq!(told_code("a/src/x.rs", concat!("const A: &str = \"to", "do!\";")), "");
}

#[test]
fn unsafe_is_for_the_listed_files() {
    assert!(told_code("a/src/x.rs", "fn a() { unsafe { b() } }").contains("unsafe"));
    assert_eq!(told_code("jvpn-ebpf/src/frame.rs", "fn a() { unsafe { b() } }"), "");
    assert_eq!(told_code("a/src/x.rs", "#![forbid(unsafe_code)] // unsafe\n#[unsafe(no_mangle)]\nfn a() {}"), "");
}

#[test]
fn the_core_touches_no_world() {
    for code in
        ["use std::time::Instant;", "use std::net::IpAddr;", "let x: f64 = y;", "use std::fs;", "HashMap::new()"]
    {
        assert!(told_code("jvpn-common/src/x.rs", code).contains("pure"), "{code}");
        assert_eq!(told_code("jvpn-ctl/src/x.rs", code), "", "{code}");
    }
    assert_eq!(told_code("jvpn-common/src/x.rs", "use core::net::IpAddr; // std::net would do\n"), "");
}

#[test]
fn a_unit_test_that_sleeps_is_noticed() {
    let test = "#[cfg(test)]\nmod tests {\n fn a() { std::thread::sleep(d) }\n}\n";
    assert!(told_code("jvpn-ctl/src/x.rs", test).contains("sleeps"));
    assert!(told_code("jvpn-ctl/src/x/tests.rs", "fn a() { std::thread::sleep(d) }").contains("sleeps"));
}

#[test]
fn private_places_and_foreign_registries_are_noticed() {
    assert!(told("docs/a.md", concat!("see /wo", "rk/main")).contains("private"));
    assert_eq!(told("docs/a.md", concat!("see net/wo", "rk/main")), "");
    assert!(told("Cargo.lock", "source = \"registry+https://example.org/index\"").contains("default registry"));
    assert!(told(".cargo/config.toml", "[source.mine]").contains("default registry"));
}

#[test]
fn pages_and_verbs_that_do_not_exist_are_noticed() {
    assert!(told("docs/a.md", "see [b](missing.md)").contains("missing.md"));
    assert!(told_code("a/src/x.rs", "// see missing.md\n").contains("missing.md"));
    assert_eq!(told("docs/a.md", "see [b](style.md), [c](../README.md) and docs/style.md."), "");
    assert!(told("docs/a.md", concat!("`cargo xt", "ask tset`")).contains("no verb"));
    assert_eq!(told("docs/a.md", "`cargo xtask clean-lab`, `cargo xtask VERB`"), "");
}

#[test]
fn only_the_ci_entry_is_executable() {
    let file = |path: &str| File { path: path.to_owned(), text: String::new(), executable: true };
    assert_eq!(rules::check(&file(".ci/run"), &house()), Vec::<String>::new());
    assert_eq!(rules::check(&file("tests/vectors/make.py"), &house()).len(), 1);
}

#[test]
fn code_is_told_from_comments_and_literals() {
    assert_eq!(code_only("a /* b\n */ c // d\n").split_whitespace().collect::<Vec<_>>(), ["a", "c"]);
    assert!(!code_only(r##"let a = r#"unsafe " "# ; b"##).contains("unsafe"));
    assert!(code_only(r##"let a = r#"x"# ; unsafe"##).contains("unsafe"));
    assert!(code_only("let a = '\"'; unsafe").contains("unsafe"));
    assert!(code_only("fn a<'b>(c: &'b str) { unsafe }").contains("unsafe"));
    assert!(code_only(r"let a = '\''; unsafe").contains("unsafe"));
}

#[test]
fn product_ends_where_inline_tests_begin() {
    assert_eq!(product_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(product_lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
}
