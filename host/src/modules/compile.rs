//! Compiling a module on this node, where its build can: in a child process with limits of its own
//! ([`haar_engine::compiler`]).

use std::path::Path;

use haar_engine::compiler::{CompileError, CompileLimits, Program};

use super::PrepareError;
use crate::runtime::GuestRuntime;

/// Who compiles on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// Nobody: this build has no compiler.
    None,
    /// This process, without limits. For users of this library that are not the agent's binary.
    InProcess,
    /// A process of its own.
    Child(Program, CompileLimits),
}

impl Compiler {
    /// This very program as the compiler, started as `PROGRAM arguments compile-module …`; none
    /// when it was built without one.
    ///
    /// # Errors
    /// When the system does not tell which program this is.
    pub fn of_this_program(arguments: &[&str], limits: CompileLimits) -> std::io::Result<Self> {
        if cfg!(feature = "compiler") {
            Ok(Self::Child(Program::this(arguments)?, limits))
        } else {
            Ok(Self::None)
        }
    }

    /// Compiles `file`, whose content is at `input`, by way of the file `output`.
    pub(super) fn compile(
        &self,
        file: &[u8],
        input: &Path,
        output: &Path,
        runtime: &GuestRuntime,
    ) -> Result<Vec<u8>, PrepareError> {
        match self {
            Self::None => Err(without_compiler()),
            Self::InProcess => in_process(file, runtime),
            Self::Child(program, limits) => {
                program
                    .compile(*limits, None, input, output)
                    .map_err(|error| match error {
                        CompileError::Module(_) => PrepareError::Refused(error.to_string()),
                        CompileError::Machine(_) => PrepareError::NotYet(error.to_string()),
                    })
            }
        }
    }
}

#[cfg(feature = "compiler")]
fn in_process(file: &[u8], runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    let target = haar_engine::configuration::target();
    haar_engine::compiler::child::precompile(runtime.engine(), &target, file)
        .map_err(|error| PrepareError::Refused(format!("the module can't be compiled: {error:#}")))
}

#[cfg(not(feature = "compiler"))]
fn in_process(_file: &[u8], _runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    Err(without_compiler())
}

fn without_compiler() -> PrepareError {
    PrepareError::NotYet("this agent was built without the compiler".into())
}
