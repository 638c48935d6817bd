//! The `gaggle` binary: parse, set the process up, run one command, turn its end into an exit code.

use gaggle::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
