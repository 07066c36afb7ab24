//! The program: reads the command line, runs one verb, turns its outcome into an exit code.
//!
//! Owns nothing else. Must never contain what a verb does.

fn main() -> std::process::ExitCode {
    jvpn_ctl::cli::main()
}
