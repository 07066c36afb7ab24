//! What the store keeps, and what it says about images a power cut could leave.

use super::*;

fn session(byte: u8) -> StoredSession {
    StoredSession {
        id: SessionId([byte; 16]),
        peer: [byte; 32],
        addresses: vec!["10.77.0.17/32".parse().expect("an address")],
        policy: "field".into(),
        policy_version: PolicyVersion(3),
        state: "ATTACHED".into(),
        session_ttl_left_ms: 1_000,
        loss_ttl_left_ms: None,
        at: Instant(0),
        wall_ms: 1_700_000_000_000,
        ceiling: Version(CEILING_BLOCK),
        boot_id: "boot".into(),
        core: vec![1, 2, 3],
    }
}

#[test]
fn what_was_put_is_loaded_after_a_restart_and_what_was_removed_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    store.put(&session(1)).expect("stored");
    store.put(&session(2)).expect("stored");
    store.remove(SessionId([1; 16])).expect("removed");
    drop(store);
    let store = Store::open(dir.path()).expect("opens again");
    assert_eq!(store.load_all().expect("loads"), [session(2)]);
}

#[test]
fn a_ceiling_only_rises_and_touches_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    store.put(&session(1)).expect("stored");
    store.raise_ceiling(SessionId([1; 16]), Version(2_048)).expect("raised");
    store.raise_ceiling(SessionId([1; 16]), Version(7)).expect("ignored");
    store.raise_ceiling(SessionId([9; 16]), Version(7)).expect("nobody");
    assert_eq!(store.load_all().expect("loads"), [StoredSession { ceiling: Version(2_048), ..session(1) }]);
}

#[test]
fn incarnations_grow_by_one_and_the_owner_epoch_never_falls() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open(dir.path()).expect("opens").next_incarnation().expect("counts");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.next_incarnation().expect("counts"), Incarnation(first.0 + 1));
    assert_eq!(store.owner_epoch().expect("reads"), OwnerEpoch(1));
    store.apply(&[Change::RaiseOwnerEpoch(OwnerEpoch(9)), Change::RaiseOwnerEpoch(OwnerEpoch(4))]).expect("raised");
    assert_eq!(store.owner_epoch().expect("reads"), OwnerEpoch(9));
}

#[test]
fn a_second_store_on_the_same_directory_names_the_holder() {
    let dir = tempfile::tempdir().expect("a directory");
    let _store = Store::open(dir.path()).expect("opens");
    let error = Store::open(dir.path()).expect_err("held");
    assert!(error.to_string().ends_with(&format!("is in use by process {}", std::process::id())), "{error}");
}

#[test]
fn a_torn_or_damaged_image_opens_or_is_an_error_with_its_name_but_never_a_panic() {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let store = Store::open(dir.path()).expect("opens");
        for byte in 1..40 {
            store.put(&session(byte)).expect("stored");
        }
    }
    let image = std::fs::read(dir.path().join("state.redb")).expect("the image");
    let mut refused = 0;
    // Cuts at odd places, and one flipped byte in each part of the headers and the pages.
    let cuts = [1, 63, 64, 320, 4_096, 4_097, image.len() / 2, image.len() - 1].map(|cut| image[..cut].to_vec());
    let flips = (0..image.len()).step_by(397).chain(0..64).map(|at| {
        let mut flipped = image.clone();
        flipped[at] ^= 0xff;
        flipped
    });
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for (number, bytes) in cuts.into_iter().chain(flips.take(400)).enumerate() {
        let torn = dir.path().join(format!("torn-{number}"));
        std::fs::create_dir(&torn).expect("a directory");
        std::fs::write(torn.join("state.redb"), bytes).expect("written");
        let outcome = Store::open(&torn).and_then(|store| store.load_all());
        if let Err(error) = outcome {
            refused += 1;
            assert!(error.to_string().contains("state.redb"), "{error}");
        }
        std::fs::remove_dir_all(&torn).expect("removed");
    }
    std::panic::set_hook(quiet);
    assert!(refused >= 8, "only {refused} images were refused");
}

#[test]
fn a_text_file_in_its_place_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("state.redb"), "hello".repeat(2_000)).expect("written");
    let error = Store::open(dir.path()).expect_err("refused");
    assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("state.redb"), "{error}");
}
