//! `cargo xtask disasm`: owns printing the kernel program as instructions beside their source.
//! Must never change the object.

use std::path::PathBuf;
use std::process::Command;

use crate::exit::{self, Exit};
use crate::{Args, bpf, no_args, paths, run, setup, tool};

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    no_args("disasm", args)?;
    let ready = setup::ensure()?;
    bpf::build(&ready)?;
    let major = tool::llvm_major(Some(ready.compiler));
    let beside_llvm = tool::llvm(major).map(|(prefix, _)| prefix.join("bin/llvm-objdump"));
    let objdump: PathBuf = beside_llvm
        .filter(|file| file.is_file())
        .or_else(|| paths::program("llvm-objdump"))
        .ok_or_else(|| Exit::because(exit::MISSING, format!("no llvm-objdump; install llvm-{major}")))?;
    let mut command = Command::new(objdump);
    command.args(["--disassemble", "--source", "--no-show-raw-insn"]).arg(paths::object());
    run::run(command)
}
