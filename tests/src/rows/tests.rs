//! Evidence: what counts, what is missing, what is wrong.

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

fn all_but(missing: &[usize]) -> String {
    let rows: Rows = (0..TABLE.len()).filter(|row| !missing.contains(row)).map(|row| (row, 3)).collect();
    lines(Place::Simulation, &rows)
}

#[test]
fn a_row_nobody_took_is_missing_until_one_run_of_any_place_has_it() {
    let seen = all_but(&[4, 20]);
    let dir = directory(&[("sim", &seen)]);
    assert_eq!(Evidence::read(dir.path()).expect("readable").missing(), [5, 21]);
    let dir = directory(&[("sim", &seen), ("relay", "lab\t4\t2\nlab\t20\t0\n")]);
    let evidence = Evidence::read(dir.path()).expect("readable");
    assert_eq!(evidence.missing(), [21], "a count of zero is no run");
    assert!(evidence.table().contains("simulation: -  lab: relay 2"), "{}", evidence.table());
}

#[test]
fn runs_of_one_step_add_up() {
    let dir = directory(&[("relay", "lab\t11\t2\nlab\t11\t5\n")]);
    let table = Evidence::read(dir.path()).expect("readable").table();
    assert!(table.contains("lab: relay 7"), "{table}");
}

#[test]
fn what_cannot_be_evidence_is_an_error() {
    for (text, said) in [
        ("wrong\tsession 4: the record says v7\n", "the record says v7"),
        ("lab\t99\t1\n", "no row 99"),
        ("moon\t1\t1\n", "no such place"),
        ("lab\t1\n", "lab\t1"),
        ("lab\tx\t1\n", "a row's number"),
    ] {
        let dir = directory(&[("relay", text)]);
        let error = format!("{:#}", Evidence::read(dir.path()).expect_err(text));
        assert!(error.contains(said) && error.contains("noted by relay"), "{error}");
    }
    let gone = tempfile::tempdir().expect("a directory").path().join("none");
    assert!(format!("{:#}", Evidence::read(&gone).expect_err("nothing there")).contains("cargo xtask test"));
}

#[test]
fn a_state_directory_without_a_record_has_taken_no_row() {
    let dir = directory(&[]);
    assert!(of_record(&dir_of(dir.path())).expect("nothing to read").is_empty());
}

#[test]
fn only_births_are_in_no_record_and_three_rows_have_no_natural_cause() {
    let memory: Vec<usize> = (0..TABLE.len()).filter(|&row| is_in_memory(&TABLE[row])).collect();
    assert_eq!(memory, [1, 2]);
    let without = |place| TABLE.iter().filter(|row| thrown(row, place).is_some()).count();
    assert_eq!((without(Place::Simulation), without(Place::Lab)), (3, 2), "a lab has a second owner");
}

#[test]
fn a_row_says_of_each_place_what_stood_for_its_cause() {
    let row = TABLE.iter().position(|row| row.on == On::NewerOwner).expect("a row");
    let dir = directory(&[("sim", &all_but(&[])), ("crash", &format!("lab\t{row}\t1\n"))]);
    let table = Evidence::read(dir.path()).expect("readable").table();
    let line = table.lines().nth(row * 2 + 1).expect("its line");
    assert!(line.contains("sim 3  [switch: a newer owner's epoch"), "{line}");
    assert!(line.ends_with("lab: crash 1"), "{line}");
}
