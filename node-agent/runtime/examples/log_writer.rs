//! The log writer alone, as the tests need it; in the product it is a hidden subcommand of `skep`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(skep_runtime::LOG_WRITER_COMMAND), Some(target)) => match skep_runtime::logger_main(&target) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("log writer: {error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}
