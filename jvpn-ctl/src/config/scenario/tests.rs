//! Described networks as people write them, right and wrong.
//!
//! Owns claims about the file. Must never play one.

use super::*;

fn read(text: &str) -> Result<Scenario, String> {
    let source = Source::new(FilePath::new("net.toml"), text.to_owned());
    parse(&source, "net".to_owned()).map_err(|report| report.to_string())
}

const PATH: &str = "duration = \"1m\"\n[[path]]\nname = \"wifi\"\n";

#[test]
fn every_scenario_that_ships_reads_and_begins_something() {
    for (name, says, _) in SHIPPED {
        let scenario = shipped(name).unwrap_or_else(|report| panic!("{report}"));
        assert!(scenario.beginnings() > 0 && !says.is_empty(), "{name}");
    }
    let refused = shipped("flaping").expect_err("there is none").to_string();
    assert!(refused.contains("did you mean `flapping`?"), "{refused}");
}

#[test]
fn what_is_left_out_has_a_default() {
    let scenario = read(PATH).expect("fine");
    assert_eq!((scenario.traffic, scenario.faults.len()), (Some(Duration::from_millis(20)), 0));
    assert_eq!((scenario.paths[0].delay, scenario.paths[0].loss), (Duration::from_millis(10), 0));
    assert_eq!(read(&PATH.replace("\n[[path]]", "\ntraffic = \"none\"\n[[path]]")).expect("fine").traffic, None);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let fault = |lines: &str| format!("{PATH}[[fault]]\npath = \"wifi\"\n{lines}");
    for (text, says) in [
        ("duration = \"1m\"\n".to_owned(), &["1 to 4 tables [[path]], not 0", "net.toml:1:"][..]),
        (PATH.replace("1m", "1d"), &["between 1s and 1h", "net.toml:1:12"]),
        (PATH.replace("1m", "soon"), &["`duration` wants a duration"]),
        (format!("{PATH}[[path]]\nname = \"wifi\"\n"), &["`wifi` is there twice", "net.toml:5:8"]),
        (format!("{PATH}loss = \"101 %\"\n"), &["`loss` wants a share"]),
        (format!("{PATH}class = \"never\"\n"), &["`class` is one of: primary, secondary, backup"]),
        (format!("{PATH}colour = 1\n"), &["unknown key `colour`"]),
        (fault("kind = \"death\"\nat = \"1s\"\n"), &["does not say how long", "net.toml:6:8"]),
        (
            fault("kind = \"deth\"\nat = \"1s\"\nfor = \"1s\"\n"),
            &["`kind` is one of: death, link, pause, rebind, loss"],
        ),
        (fault("kind = \"loss\"\nat = \"1s\"\nfor = \"1s\"\n"), &["`loss` wants a key `value`"]),
        (fault("kind = \"link\"\nvalue = \"3 %\"\nat = \"1s\"\nfor = \"1s\"\n"), &["`link` has no `value`"]),
        (fault("kind = \"link\"\nat = \"1s\"\nfor = \"2s\"\nevery = \"2s\"\n"), &["contradict each other"]),
        (fault("kind = \"link\"\nat = \"0ms\"\nfor = \"1ms\"\nevery = \"1ms\"\n"), &["between 10ms and 1h"]),
        (
            fault("kind = \"rebind\"\nat = \"0ms\"\nevery = \"10ms\"\n").replace("1m", "1h"),
            &["begin more than 10000 times"],
        ),
        (
            fault("kind = \"link\"\nat = \"1s\"\nfor = \"1s\"\n").replace("path = \"wifi\"", "path = \"lte\""),
            &["no path is called `lte`", "net.toml:5:8"],
        ),
        (
            fault("kind = \"death\"\nat = \"1s\"\nfor = \"1s\"\ndirection = \"left\"\n"),
            &["`direction` is one of: both, up, down"],
        ),
    ] {
        let refused = read(&text).expect_err(&text);
        says.iter().for_each(|part| assert!(refused.contains(part), "`{part}` is missing in\n{refused}"));
    }
}
