//! The command line: a table of flags per command, from which parsing and help both follow.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use crate::Failure;

/// One command, such as `load` or `ring show`.
pub(crate) struct Command {
    /// One word or more.
    pub(crate) name: &'static str,
    /// Arguments that are no flags, as shown in the help; each must be given.
    pub(crate) positional: &'static [&'static str],
    /// What it does: one sentence.
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
    /// What else the help says.
    pub(crate) notes: &'static str,
    /// Returns the exit status.
    pub(crate) run: fn(&Parsed) -> Result<u8, Failure>,
}

/// One flag: `--name VALUE`, or a switch if `value` is empty. `-name` and `--name=VALUE` are accepted too.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
}

/// What the command line asks for.
pub(crate) enum Outcome {
    Run(&'static Command, Parsed),
    /// This text on standard output.
    Help(String),
    /// This text on standard error.
    Wrong(String),
}

/// The flags and arguments that were given.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    flags: Vec<(&'static str, String)>,
    pub(crate) positional: Vec<String>,
}

/// A flag with a value that cannot be used, or without one that is needed.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: {problem}")]
pub(crate) struct BadFlag {
    flag: String,
    problem: String,
}

impl BadFlag {
    pub(crate) fn new(flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { flag: flag.into(), problem: problem.into() }
    }
}

impl Parsed {
    /// All values of a flag that may be repeated.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.flags.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.clone()).collect()
    }

    /// Every flag that was given with its value, in the order of the command line.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.flags.iter().map(|(flag, value)| (*flag, value.as_str()))
    }

    /// Whether a switch was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| *flag == name)
    }

    /// The value of a flag; the last one counts.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    /// The value of a flag that must be given.
    pub(crate) fn needed(&self, name: &'static str) -> Result<&str, BadFlag> {
        self.text(name).ok_or_else(|| BadFlag::new(name, "is needed"))
    }

    /// The value of a flag as a number.
    pub(crate) fn number<T: FromStr>(&self, name: &'static str, default: T) -> Result<T, BadFlag> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.replace('_', "")
            .parse()
            .map_err(|_| BadFlag::new(name, format!("`{text}` is no number that fits here")))
    }

    /// The value of a flag as a duration.
    pub(crate) fn duration(&self, name: &'static str) -> Result<Option<Duration>, BadFlag> {
        let bad = |text: &str| {
            BadFlag::new(name, format!("`{text}` is no duration: write 30s, 5m, 1h30m or 500ms"))
        };
        self.text(name).map(|text| duration(text).ok_or_else(|| bad(text))).transpose()
    }
}

/// Go's notation: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Finds the command and reads its flags.
pub(crate) fn parse(commands: &'static [Command], args: &[String]) -> Outcome {
    let is_help = |arg: &String| matches!(arg.as_str(), "--help" | "-help" | "-h");
    let words: Vec<&str> = args.iter().take_while(|arg| !arg.starts_with('-')).map(String::as_str).collect();
    let found = commands.iter().find(|command| {
        let name: Vec<&str> = command.name.split(' ').collect();
        words.starts_with(&name)
    });
    let Some(command) = found else {
        return match words.as_slice() {
            [] | ["help"] if args.iter().all(|arg| is_help(arg) || arg == "help") => {
                Outcome::Help(overview(commands))
            }
            [] => Outcome::Wrong(format!("ringctl: a command must come first\n\n{}", overview(commands))),
            [first, ..] if commands.iter().any(|command| command.name.starts_with(&format!("{first} "))) => {
                // `ring` alone, or `ring --help`.
                let asked = words.len() == 1 && args[1..].iter().any(is_help);
                let text = overview(commands);
                if asked {
                    Outcome::Help(text)
                } else {
                    Outcome::Wrong(format!("ringctl {first}: incomplete\n\n{text}"))
                }
            }
            [first, ..] => {
                Outcome::Wrong(format!("ringctl: there is no command `{first}`\n\n{}", overview(commands)))
            }
        };
    };
    let rest = &args[command.name.split(' ').count()..];
    if rest.iter().any(is_help) {
        return Outcome::Help(help(command));
    }
    match flags(command, rest) {
        Ok(parsed) => Outcome::Run(command, parsed),
        Err(problem) => {
            let name = command.name;
            Outcome::Wrong(format!("ringctl {name}: {problem}\nSee `ringctl {name} --help`.\n"))
        }
    }
}

fn flags(command: &'static Command, args: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            parsed.positional.push(arg.clone());
            continue;
        };
        let (name, inline) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let known = command.flags.iter().find(|flag| flag.name == name);
        let known = known.ok_or_else(|| {
            let names: Vec<String> = command.flags.iter().map(|flag| format!("--{}", flag.name)).collect();
            format!("--{name}: no such flag; known are {}", names.join(", "))
        })?;
        let value = match (known.value.is_empty(), inline) {
            (true, None) => String::new(),
            (true, Some(_)) => return Err(format!("--{name}: takes no value")),
            (false, Some(value)) => value.to_owned(),
            (false, None) => {
                args.next().ok_or_else(|| format!("--{name}: {} is missing", known.value))?.clone()
            }
        };
        parsed.flags.push((known.name, value));
    }
    match parsed.positional.len() {
        given if given < command.positional.len() => Err(format!("{} is missing", command.positional[given])),
        given if given > command.positional.len() => {
            Err(format!("`{}` is one argument too many", parsed.positional[command.positional.len()]))
        }
        _ => Ok(parsed),
    }
}

fn overview(commands: &[Command]) -> String {
    let mut text = "usage: ringctl COMMAND [flags]\n\n".to_owned();
    let width = commands.iter().map(|command| command.name.len() + 2).max().unwrap_or(0);
    for command in commands {
        let _ = writeln!(text, "  {:<width$}{}", command.name, command.about);
    }
    text + "\n`ringctl COMMAND --help` lists the flags of a command.\n"
}

fn help(command: &Command) -> String {
    let mut text = format!("usage: ringctl {}", command.name);
    for positional in command.positional {
        let _ = write!(text, " {positional}");
    }
    let _ = write!(text, " [flags]\n\n{}\n\n", command.about);
    let longest = command.flags.iter().map(|flag| flag.name.len() + flag.value.len() + 5).max().unwrap_or(0);
    let width = longest.max(22);
    for Flag { name, value, help } in command.flags {
        let help = help.replace('\n', &format!("\n{:1$}", "", width + 2));
        let _ = writeln!(text, "  {:<width$}{help}", format!("--{name} {value}"));
    }
    if !command.notes.is_empty() {
        let _ = write!(text, "\n{}\n", command.notes);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: &[Command] = &[
        Command {
            name: "load",
            positional: &[],
            about: "Sends.",
            flags: &[
                Flag { name: "url", value: "URL", help: "where to" },
                Flag { name: "rate", value: "N", help: "how much" },
                Flag { name: "json", value: "", help: "machine-readable" },
            ],
            notes: "",
            run: |_| Ok(0),
        },
        Command {
            name: "config check",
            positional: &["FILE"],
            about: "Checks.",
            flags: &[],
            notes: "A note.",
            run: |_| Ok(0),
        },
    ];

    fn outcome(line: &str) -> Outcome {
        parse(COMMANDS, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn run(line: &str) -> Parsed {
        match outcome(line) {
            Outcome::Run(_, parsed) => parsed,
            Outcome::Help(text) | Outcome::Wrong(text) => panic!("{line}: {text}"),
        }
    }

    fn wrong(line: &str) -> String {
        match outcome(line) {
            Outcome::Wrong(text) => text,
            _ => panic!("{line} was accepted"),
        }
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        let parsed = run("load --url a -url=b --rate 20_000 --json");
        assert_eq!(parsed.all("url"), ["a", "b"]);
        assert_eq!(parsed.number("rate", 0.0).unwrap(), 20_000.0);
        assert!(parsed.has("json") && !run("load").has("json"));
        assert_eq!(run("load").number("rate", 5).unwrap(), 5);
        let order: Vec<_> = parsed.in_order().collect();
        assert_eq!(order, [("url", "a"), ("url", "b"), ("rate", "20_000"), ("json", "")]);
        assert_eq!(run("config check x.yaml").positional, ["x.yaml"]);
    }

    #[test]
    fn every_mistake_names_what_it_is_about() {
        for (line, words) in [
            ("--url x", "a command must come first"),
            ("nonsense", "`nonsense`"),
            ("load --rat 5", "--rat: no such flag; known are --url, --rate, --json"),
            ("load --rate", "--rate: N is missing"),
            ("load --json=1", "--json: takes no value"),
            ("load extra", "`extra`"),
            ("config", "ringctl config: incomplete"),
            ("config check", "FILE is missing"),
            ("config check a b", "`b`"),
        ] {
            let text = wrong(line);
            assert!(text.contains(words), "{line}: {text}");
        }
        let bad = run("load --rate fast").number("rate", 0.0).unwrap_err().to_string();
        assert_eq!(bad, "--rate: `fast` is no number that fits here");
        assert_eq!(run("load").needed("url").unwrap_err().to_string(), "--url: is needed");
    }

    #[test]
    fn help_is_there_for_everything() {
        for (line, words) in [
            ("--help", "config check"),
            ("help", "load"),
            ("", "usage"),
            ("load --help", "--rate N"),
            ("config check -h", "A note."),
            ("config --help", "usage"),
        ] {
            match outcome(line) {
                Outcome::Help(text) => assert!(text.contains(words), "{line}: {text}"),
                _ => panic!("{line}: no help"),
            }
        }
    }

    #[test]
    fn durations_are_written_as_in_go() {
        let ms = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("250ms"), Some(250));
        for bad in ["", "5", "s", "1d", "-1s", "1s2"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
