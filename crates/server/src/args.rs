//! What is asked on the command line besides configuration.

/// What the process is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Run with what the rest of the arguments says.
    Run {
        /// And print the effective configuration first.
        print_config: bool,
    },
    /// Print how to use it.
    Help,
    /// Print the version.
    Version,
    /// Print what can be a target.
    Modules,
}

/// Takes our own flags out of the arguments; the rest is configuration. One and two dashes are the same, as in Go.
pub(crate) fn ask(args: &mut Vec<String>) -> Ask {
    let mut ask = Ask::Run { print_config: false };
    args.retain(|arg| {
        let flag = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        let (name, value) =
            flag.and_then(|flag| flag.split_once('=')).unwrap_or((flag.unwrap_or_default(), "true"));
        let wanted = match name {
            "h" | "help" => Ask::Help,
            "version" => Ask::Version,
            "modules" => Ask::Modules,
            "print.config" => Ask::Run { print_config: true },
            _ => return true,
        };
        if value == "true" && (matches!(ask, Ask::Run { .. }) || wanted == Ask::Help) {
            ask = wanted;
        }
        false
    });
    ask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> (Ask, Vec<String>) {
        let mut args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let ask = ask(&mut args);
        (ask, args)
    }

    #[test]
    fn own_flags_are_taken_out_and_the_rest_is_configuration() {
        let (ask, rest) = asked(&["-config.file=a.yaml", "--print.config", "-target=all"]);
        assert_eq!(ask, Ask::Run { print_config: true });
        assert_eq!(rest, ["-config.file=a.yaml", "-target=all"]);
        assert_eq!(asked(&["-version"]).0, Ask::Version);
        assert_eq!(asked(&["-modules=true"]).0, Ask::Modules);
        assert_eq!(asked(&["-print.config=false"]).0, Ask::Run { print_config: false });
    }

    #[test]
    fn help_wins() {
        assert_eq!(asked(&["-version", "-h"]).0, Ask::Help);
        assert_eq!(asked(&["--help", "-modules"]).0, Ask::Help);
        assert_eq!(asked(&["help"]), (Ask::Run { print_config: false }, vec!["help".to_owned()]));
    }
}
