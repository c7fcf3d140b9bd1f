//! `samehost completions` and `samehost man`, for packages of the command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use crate::failure::{Failure, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost completions bash > /usr/share/bash-completion/completions/samehost
  samehost completions zsh > /usr/share/zsh/vendor-completions/_samehost
  samehost completions fish > ~/.config/fish/completions/samehost.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell that the completions are for
    shell: clap_complete::Shell,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost man > samehost.1
  samehost man serve > samehost-serve.1")]
pub(crate) struct ManArgs {
    /// Subcommand whose page to print [default: the command itself]
    subcommand: Option<String>,
}

pub(crate) fn completions<C: CommandFactory>(args: &CompletionsArgs) -> Outcome {
    // clap_complete offers hidden subcommands, too.
    let whole = C::command();
    let documented = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let mut command = clap::Command::new("samehost")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(documented.cloned());
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command, "samehost", &mut out);
    print(&out)
}

pub(crate) fn man<C: CommandFactory>(args: &ManArgs) -> Outcome {
    // `help` is left out of the list of subcommands: it has no page.
    let mut command = C::command().disable_help_subcommand(true);
    // This gives the subcommands their full names and the options that all of them have.
    command.build();
    let (title, page) = match &args.subcommand {
        None => ("samehost".to_owned(), command),
        Some(name) => {
            let mut subcommands = command.get_subcommands();
            let found = subcommands.find(|found| found.get_name() == name).cloned();
            let page = found.ok_or_else(|| {
                Failure::Usage(format!("there is no subcommand {name:?}: see samehost --help"))
            })?;
            (format!("samehost-{name}"), page)
        }
    };
    let mut out = Vec::new();
    let source = concat!("samehost ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(page).title(title).source(source).render(&mut out)?;
    print(&out)
}

fn print(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    Ok(ExitCode::SUCCESS)
}
