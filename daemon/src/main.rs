//! The `gaggle` binary: parse, set the process up, run one command, turn its end into an exit code.

use gaggle::cli;
use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
