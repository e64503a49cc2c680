//! The `recharged` command.

fn main() {
    // Held to the end: dropping it would disarm what the environment asked for.
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    // Not a return from main: that would wait for threads which sit in a dead driver's call.
    std::process::exit(recharged::cli::main(std::env::args_os()).into());
}
