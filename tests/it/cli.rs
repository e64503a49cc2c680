//! The command as people and programs meet it: output, exit codes, one-line errors.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

fn recharged(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RECHARGED_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    recharged(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const RIGHT: [&str; 8] = [
    "--set",
    "kafka.brokers=kafka:9092",
    "--set",
    "store.url=sqlite://r.db",
    "--set",
    "security.phone_key_file=/run/secrets/phone",
    "--set",
    "providers.p={kind=\"simulator\",base_url=\"http://h\"}",
];

fn with<'a>(command: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    command.iter().chain(rest).copied().collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 24] = [
        &[],
        &["demo"],
        &["run"],
        &["migrate"],
        &["topics"],
        &["topics", "create"],
        &["topics", "verify"],
        &["orders"],
        &["orders", "show"],
        &["orders", "list"],
        &["orders", "export"],
        &["orders", "import"],
        &["dead-letters"],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["dead-letters", "replay"],
        &["dead-letters", "discard"],
        &["load"],
        &["simulate"],
        &["audit"],
        &["reconcile"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
    ];
    for command in commands {
        let output = run(&with(command, &["--help"]));
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let help = stdout(&output);
        let example = format!("  recharged {}", command.join(" "));
        let examples = help.split_once("Example:\n").or_else(|| help.split_once("Examples:\n"));
        assert!(examples.is_some_and(|(_, text)| text.starts_with(example.trim_end())), "{command:?}: {help}");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let wrong: [&[&str]; 13] = [
        &["bogus"],
        &["demo", "--faults", "wild"],
        &["demo", "--sla", "180"],
        &["demo", "--rate", "0"],
        &["orders", "show"],
        &["orders", "list", "--state", "paid"],
        &["dead-letters", "show", "3"],
        &["dead-letters", "list", "--reason", "bad"],
        &["dead-letters", "replay"],
        &["dead-letters", "replay", "3:42", "--all"],
        &["dead-letters", "discard", "--all", "--by", "me"],
        &["dead-letters", "discard", "3:42", "--by", "me", "--why", " "],
        &["load"],
    ];
    for arguments in wrong {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.starts_with("recharged: "), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_a_simulator_cannot_use_is_told_with_its_file_its_key_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.toml");
    let file = path.to_str().unwrap();
    for (flag, text, words) in [
        ("--profile", "[faults.hang]\nbefore = 2.0\n", "faults: 2 is not between 0 and 1"),
        ("--profile", "[outcome]\nnever = 1.0\n", "unknown field `outcome`"),
        ("--profile", "cooldown = \"soon\"\n", "cooldown"),
        ("--script", "[[step]]\nnext = 1\nthen = \"faults.hang.afer\"\n", "did you mean \"faults.hang.after\"?"),
        (
            "--script",
            "[[step]]\nthen = \"deliver\"\n",
            "step 1: it must have exactly one of client_ref, order and next",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = run(&["simulate", "--listen", "127.0.0.1:0", flag, file]);
        assert_eq!(output.status.code(), Some(78), "{text}");
        let said = stderr(&output);
        assert!(said.starts_with(&format!("recharged: {flag} {file}: ")) && said.contains(words), "{text}: {said}");
    }
    let output = run(&["simulate", "--script", "/nowhere.toml"]);
    assert!(stderr(&output).starts_with("recharged: --script /nowhere.toml: cannot be read"), "{}", stderr(&output));
    assert_eq!(run(&["simulate", "--balance", "-1"]).status.code(), Some(2));
}

#[test]
fn no_arguments_at_all_show_the_help_on_stderr() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Commands:"));
}

#[test]
fn a_right_configuration_passes_the_check_and_a_wrong_one_exits_with_78() {
    let right = run(&with(&["config", "check"], &RIGHT));
    assert_eq!(right.status.code(), Some(0), "{}", stderr(&right));
    assert!(stdout(&right).starts_with("the configuration is right"));

    let wrong = run(&with(&["config", "check", "--set", "sla.deadline=fast", "--set", "http.listen=x"], &RIGHT));
    assert_eq!(wrong.status.code(), Some(78));
    assert_eq!(stderr(&wrong).lines().count(), 2);
    assert!(stderr(&wrong).contains("recharged: --set: sla.deadline: \"fast\" does not fit here"));
}

#[test]
fn the_check_for_programs_is_one_object() {
    let output = run(&["config", "check", "--json", "--config", "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["ok"], false);
    assert_eq!(verdict["problems"][0]["place"], "/nowhere.toml");
    assert!(output.stderr.is_empty());
}

#[test]
fn secrets_are_read_by_the_check_only_if_asked() {
    let asked = run(&with(&["config", "check", "--secrets"], &RIGHT));
    assert_eq!(asked.status.code(), Some(78));
    assert!(stderr(&asked).contains("security.phone_key_file: cannot read /run/secrets/phone"), "{}", stderr(&asked));
}

#[test]
fn the_effective_configuration_shows_sources_and_masks_secrets() {
    let output = recharged(&with(&["config", "show"], &RIGHT[..2]))
        .env("RECHARGED__STORE__URL", "postgres://me:canary@db/r")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let shown = stdout(&output);
    assert!(shown.contains("postgres://me:****@db/r"), "{shown}");
    assert!(shown.contains("# environment RECHARGED__STORE__URL"));
    assert!(!format!("{shown}{}", stderr(&output)).contains("canary"));
}

#[test]
fn the_schema_describes_every_section() {
    let output = run(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for section in ["process", "sla", "kafka", "store", "providers", "routes", "delay", "http", "log"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[test]
fn a_command_says_what_it_is_missing_before_it_opens_anything() {
    let output = run(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    let said = stderr(&output);
    for key in ["kafka.brokers", "store.url", "providers", "security.phone_key_file"] {
        assert!(said.contains(&format!("{key}: ")), "{said}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = recharged(&["config", "schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Closed before the command writes, or after its first line: either way there is no noise.
    let mut first = String::new();
    let mut pipe = BufReader::with_capacity(16, child.stdout.take().unwrap());
    pipe.read_line(&mut first).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(first, "{\n");
}
