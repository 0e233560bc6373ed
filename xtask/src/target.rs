//! The machines that the agent is built for.

use clap::ValueEnum;

/// A kind of gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// 64-bit ARM, static.
    #[value(name = "aarch64-unknown-linux-musl")]
    Aarch64,
    /// 32-bit ARM with hardware floating point. Not static: its target with musl is not to be had
    /// everywhere, so it takes the system's C library.
    #[value(name = "armv7-unknown-linux-gnueabihf")]
    Armv7,
    /// 64-bit RISC-V, with or without vectors. Not static: its target with musl is not to be had
    /// everywhere.
    #[value(name = "riscv64gc-unknown-linux-gnu")]
    Riscv64,
    /// 64-bit PC, static.
    #[value(name = "x86_64-unknown-linux-musl")]
    X86,
}

/// The C library that the targets that are not static need at least: that of Debian 11.
pub(crate) const GLIBC: &str = "2.31";

impl Target {
    /// All of them, in the order in which they are built.
    pub(crate) const ALL: [Self; 4] = [Self::Aarch64, Self::Armv7, Self::Riscv64, Self::X86];

    /// Rust's name for it.
    pub(crate) const fn triple(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-musl",
            Self::Armv7 => "armv7-unknown-linux-gnueabihf",
            Self::Riscv64 => "riscv64gc-unknown-linux-gnu",
            Self::X86 => "x86_64-unknown-linux-musl",
        }
    }

    /// Whether the program brings its C library with it.
    pub(crate) fn is_static(self) -> bool {
        self.triple().ends_with("-musl")
    }

    /// The name by which `cargo zigbuild` links against the right C library.
    pub(crate) fn link_triple(self) -> String {
        if self.is_static() {
            self.triple().to_owned()
        } else {
            format!("{}.{GLIBC}", self.triple())
        }
    }

    /// Debian's name of the architecture.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::Armv7 => "armhf",
            Self::Riscv64 => "riscv64",
            Self::X86 => "amd64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_the_name_on_the_command_line_that_rust_gives_it() {
        for target in Target::ALL {
            assert_eq!(
                Target::from_str(target.triple(), false).as_ref(),
                Ok(&target)
            );
        }
    }

    #[test]
    fn a_program_that_is_not_static_runs_on_the_oldest_system_that_is_supported() {
        assert_eq!(
            Target::Armv7.link_triple(),
            "armv7-unknown-linux-gnueabihf.2.31"
        );
        assert_eq!(Target::Aarch64.link_triple(), "aarch64-unknown-linux-musl");
    }
}
