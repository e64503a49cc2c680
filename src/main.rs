//! The `recharged` command.

fn main() {
    // Not a return from main: that would wait for threads which sit in a dead driver's call.
    std::process::exit(recharged::cli::main(std::env::args_os()).into());
}
