//! The inputs that are kept, and what is near them. The fuzzer itself goes on for longer, and is guided by what it sees
//! (`scripts/campaign fuzz`).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::TARGETS;

/// For all targets together; `FUZZ_SECONDS` is another.
const DAMAGE_FOR: Duration = Duration::from_secs(5);
/// What a damaged input is no longer than.
const LENGTH_MAX: usize = 4_096;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Name and bytes of each input of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = home().join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

fn holds(run: fn(&[u8]), input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(input))).is_ok()
}

#[test]
fn every_input_that_is_kept_holds() {
    let mut broken = Vec::new();
    for (target, run) in TARGETS {
        let kept = inputs(target);
        assert!(kept.len() >= 5, "{target} has few inputs");
        broken.extend(kept.iter().filter(|(_, input)| !holds(run, input)).map(|(name, _)| format!("{target}/{name}")));
    }
    assert!(broken.is_empty(), "tests/fuzz/corpus: {broken:#?}");
}

#[test]
fn inputs_that_are_damaged_at_random_hold_too() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or_else(rand::random);
    let whole = number("FUZZ_SECONDS").map_or(DAMAGE_FOR, Duration::from_secs);
    let share = whole / u32::try_from(TARGETS.len()).unwrap();
    for (target, run) in TARGETS {
        let mut random = StdRng::seed_from_u64(seed);
        let kept: Vec<Vec<u8>> = inputs(target).into_iter().map(|(_, input)| input).collect();
        let until = Instant::now() + share;
        while Instant::now() < until {
            let input = damaged(&kept, &mut random);
            if !holds(run, &input) {
                let file = std::env::temp_dir().join(format!("recharged-fuzz-{target}"));
                std::fs::write(&file, &input).unwrap();
                let file = file.display();
                panic!("FUZZ_SEED={seed}: {target} does not hold for {file}; keep it in tests/fuzz/corpus/{target}");
            }
        }
    }
}

/// One of them, with a few changes: bytes, pieces of others, repetitions, cuts, numbers.
fn damaged(kept: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"\0",
        b"\"",
        b"\\u0000",
        b"\\ud800",
        b"\n",
        b"\r\n",
        b"[",
        b"{",
        b"null",
        b"-1",
        b"1e999",
        b"\xff",
        b"18446744073709551615",
        b"9223372036854775808",
    ];
    let mut input = kept.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=4) {
        let place = |random: &mut StdRng, input: &[u8]| random.random_range(0..=input.len());
        let (one, other) = (place(random, &input), place(random, &input));
        let (from, to) = (one.min(other), one.max(other));
        match random.random_range(0..7) {
            0 if from < input.len() => input[from] ^= 1 << random.random_range(0..8),
            1 => drop(input.splice(from..from, WORDS.choose(random).unwrap().iter().copied())),
            2 => drop(input.drain(from..to.min(from + 16))),
            3 => {
                let piece = input[from..to.min(from + 64)].repeat(random.random_range(1..4));
                input.splice(from..from, piece);
            }
            4 => {
                let donor = kept.choose(random).unwrap();
                let at = place(random, donor);
                let piece = donor[at..donor.len().min(at + 64)].to_vec();
                input.splice(from..to.min(from + 64), piece);
            }
            5 => input.truncate(from),
            _ => {
                let digits = input.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit());
                let digits: Vec<usize> = digits.map(|(at, _)| at).collect();
                if let Some(at) = digits.choose(random) {
                    input[*at] = b'0' + random.random_range(0..10);
                }
            }
        }
        input.truncate(LENGTH_MAX);
    }
    input
}

#[test]
fn every_target_has_its_program() {
    let manifest = std::fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), targets.collect::<BTreeSet<_>>());
    for (target, _) in TARGETS {
        let source = std::fs::read_to_string(home().join(format!("targets/{target}.rs"))).unwrap();
        assert!(source.contains(&format!("recharged::fuzzing::{target}(bytes)")), "{target} runs another one");
    }
}

/// A fuzzer makes digits out of digits. What is kept of what it finds must not be a number that somebody may have.
#[test]
fn the_inputs_hold_no_number_but_invented_ones() {
    let has_five_equal = |row: &[u8]| row.windows(5).any(|five| five.iter().all(|digit| *digit == five[0]));
    let is_invented = |row: &&[u8]| has_five_equal(row) || *row == u32::MAX.to_string().as_bytes();
    for (target, _) in TARGETS {
        for (name, input) in inputs(target) {
            let rows = input.split(|byte| !byte.is_ascii_digit()).filter(|row| (9..=15).contains(&row.len()));
            let doubtful = rows.filter(|row| !is_invented(row)).count();
            assert_eq!(doubtful, 0, "{target}/{name}: no five equal digits side by side");
        }
    }
}
