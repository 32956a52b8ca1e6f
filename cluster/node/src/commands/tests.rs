//! The command line as people read it.

use super::Cli;
use clap::CommandFactory;

fn help(of: &str) -> String {
    let mut cli = Cli::command();
    cli.build();
    let command = match of {
        "" => &mut cli,
        of => cli.find_subcommand_mut(of).expect("there is such a command"),
    };
    command.render_long_help().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("help", help(""));
    let commands = [
        "node", "rejoin", "keys", "up", "status", "apply", "topic", "link", "rule", "demo", "bench",
    ];
    for command in commands {
        insta::assert_snapshot!(format!("help_{command}"), help(command));
    }
}
