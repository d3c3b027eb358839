//! The `coop` program: reads arguments and environment, calls the libraries, renders what they
//! say. It alone prints, reads the environment and sets the exit code.

mod arguments;
mod command;
mod environment;
mod failure;
mod host;
mod render;
mod signals;
mod terminal;

use std::process::ExitCode;

use arguments::{Arguments, Command, ImageCommand};
use environment::Environment;
use failure::{FAILED, USAGE};
use render::Output;

fn main() -> ExitCode {
    host::raise_descriptor_limit();
    let environment = Environment::read();
    let output = Output::new(&environment);
    let arguments = match Arguments::of_program() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    let (result, json) = match &arguments.command {
        Command::Build(options) => (
            command::build::run(options, &environment, &output),
            options.json,
        ),
        Command::Run(options) => (
            command::run::run(options, &environment, &output),
            // A run has a report of its own, also of its failure.
            false,
        ),
        Command::Check(options) => (
            command::check::run(options, &environment, &output),
            options.json,
        ),
        Command::Lock(options) => (
            command::lock::run(options, &environment, &output),
            options.json,
        ),
        Command::Explain(options) => (
            command::explain::run(options, &environment, &output),
            options.json,
        ),
        Command::Cache(command) => (
            command::cache::run(command, &environment),
            command::cache::is_json(command),
        ),
        Command::Fetch(options) => (
            command::lock::fetch(options, &environment, &output),
            options.json,
        ),
        Command::Pack(options) => (command::pack::pack(options), options.json),
        Command::Unpack(options) => (command::pack::unpack(options, &environment), options.json),
        Command::Sign(options) => (command::sign::run(options, &environment), options.json),
        Command::Inspect(options) => (
            command::inspect::run(options, &environment, &output),
            options.json,
        ),
        Command::Serve(options) => (command::serve::run(options), false),
        Command::Verify(options) => (
            command::verify::run(options, &environment, &output),
            options.json,
        ),
        Command::Convert(options) => (
            command::convert::run(options, &environment, &output),
            options.json,
        ),
        Command::Push(options) => (
            command::push::run(options, &environment, &output),
            options.json,
        ),
        Command::Pull(options) => (
            command::pull::run(options, &environment, &output),
            options.json,
        ),
        Command::Export(options) => (
            command::export::run(options, &environment, &output),
            options.json,
        ),
        Command::Diff(options) => (command::diff::run(options, &environment), options.json),
        Command::Import(options) => (command::import::run(options), options.json),
        Command::Ps(options) => (command::detached::list(options, &environment), options.json),
        Command::Logs(options) => (command::detached::logs(options, &environment), false),
        Command::Attach(options) => (command::detached::attach(options, &environment), false),
        Command::Exec(options) => (command::detached::exec(options, &environment), false),
        Command::Cp(options) => (command::detached::copy(options, &environment), false),
        Command::Stop(options) => (command::detached::stop(options, &environment), false),
        Command::Kill(options) => (command::detached::kill(options, &environment), false),
        Command::Test(options) => (
            command::test::run(options, &environment, &output),
            options.json,
        ),
        Command::Doctor(options) => (command::doctor::run(options, &environment), options.json),
        Command::Schema => (command::about::schema(), false),
        Command::Completions(options) => (command::about::completions(options), false),
        Command::Kernel(command) => (
            command::kernel::run(command, &environment, &output),
            command::kernel::is_json(command),
        ),
        Command::Image(ImageCommand::Resize(options)) => {
            (command::image::resize(options), options.json)
        }
        Command::Image(ImageCommand::Build(options)) => (
            command::image::build(options, &environment, &output),
            options.json,
        ),
    };
    let code = result.unwrap_or_else(|failure| {
        if json {
            render::json::value(&render::json::failure(&failure));
        } else {
            render::error::failure(&output, &failure);
        }
        failure.code
    });
    match render::lost() {
        Some(why) => {
            render::line(&format!("error: standard output: {why}"));
            ExitCode::from(if code == 0 { FAILED } else { code })
        }
        None => ExitCode::from(code),
    }
}

/// What clap says.
fn refuse(error: &clap::Error) -> u8 {
    // Help and version are no errors and go to stdout; a closed pipe is nobody's concern.
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(USAGE)
}
