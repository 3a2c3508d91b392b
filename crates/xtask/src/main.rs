//! Developer commands, `cargo xtask …`. No dependencies, so that it is built in a moment.

mod install;
mod run;

use std::process::ExitCode;

use install::{CARGO_NEXTEST, Need};
use run::{Step, say};

const USAGE: &str = "\
usage: cargo xtask dev [args…]     build and run a whole cluster in one process; `cargo xtask dev --help` lists its flags
       cargo xtask test [filters]  install what the tests need, then run all tests, doc tests and the documentation build;
                                   with filters only the tests whose names contain one of them
       cargo xtask soak [name]     run the long tests, or those whose names contain `name`; --list names them
       cargo xtask ci              formatting, lints, then as `test`
       cargo xtask fmt | lint      only formatting, only lints
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match command.as_str() {
        "dev" => dev(&rest),
        "test" => test(&rest),
        "soak" => soak(&rest),
        "ci" => fmt().and_then(|()| lint()).and_then(|()| test(&[])),
        "fmt" => fmt(),
        "lint" => lint(),
        "" | "help" | "--help" | "-h" => {
            say(USAGE);
            return ExitCode::from(u8::from(command.is_empty()) * 2);
        }
        other => Err(format!("there is no command `{other}`\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&format!("xtask {command}: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}

/// What compiling takes.
const BUILD: &[Need] = &[
    Need { program: "cc", package: "gcc libc6-dev", why: "Rust links with it" },
    Need {
        program: "pkg-config",
        package: "pkg-config",
        why: "finds the libraries that the client of Consul wants",
    },
    Need { program: "openssl.pc", package: "libssl-dev", why: "the client of Consul is compiled against it" },
    Need { program: "protoc", package: "protobuf-compiler", why: "the client of etcd is compiled with it" },
    Need {
        program: "/usr/include/google/protobuf/descriptor.proto",
        package: "libprotobuf-dev",
        why: "the client of etcd is compiled with it",
    },
];

/// What the tests take besides.
const TEST: &[Need] = &[
    Need { program: "prometheus", package: "prometheus", why: "tests write from and read into a real one" },
    Need { program: "etcd", package: "etcd-server", why: "tests talk to a real one" },
    Need { program: "chromium", package: "chromium", why: "tests look at pages with it" },
    Need { program: "chromedriver", package: "chromium-driver", why: "tests click with it" },
    Need { program: "promtool", package: "prometheus", why: "tests check files with it" },
    Need { program: "ip", package: "iproute2", why: "tests make networks with it" },
    Need { program: "nft", package: "nftables", why: "tests cut networks with it" },
];

fn dev(args: &[String]) -> Result<(), String> {
    install::ensure(BUILD)?;
    Step::cargo(&["run", "--release", "--package", "ringkit", "--bin", "ringkit", "--", "dev"])
        .args(args)
        .replace()
}

fn test(filters: &[String]) -> Result<(), String> {
    install::ensure(BUILD)?;
    install::ensure(TEST)?;
    install::ensure_consul()?;
    let nextest = install::has(CARGO_NEXTEST);
    // The programs with the very features of the tests, so that nothing is compiled twice.
    Step::cargo(&["build", "--workspace", "--bins", "--tests"]).run()?;
    if nextest {
        Step::cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]).args(filters).run()?;
    } else {
        say("cargo-nextest is not installed: using `cargo test`\n");
        let tests =
            Step::cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--"]);
        tests.args(filters).run()?;
    }
    if !filters.is_empty() {
        return Ok(());
    }
    Step::cargo(&["test", "--doc", "--workspace"]).run()?;
    Step::cargo(&["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings").run()
}

/// Long tests are ordinary ones, `#[ignore]`d, with `soak` in their path.
fn soak(args: &[String]) -> Result<(), String> {
    install::ensure(BUILD)?;
    install::ensure(TEST)?;
    install::ensure_consul()?;
    let cargo = ["test", "--profile", "soak", "--workspace", "--lib", "--bins", "--tests"];
    Step::cargo(&["build", "--profile", "soak", "--workspace", "--bins", "--tests"]).run()?;
    if args.iter().any(|arg| arg == "--list") {
        return Step::cargo(&cargo).args(&["--", "soak", "--ignored", "--list", "--format=terse"]).run();
    }
    // One after the other: each is meant to have the machine for itself.
    let step = Step::cargo(&cargo).args(&["--", "--ignored", "--nocapture", "--test-threads=1"]);
    let names = if args.is_empty() { vec!["soak".to_owned()] } else { args.to_vec() };
    step.args(&names).run()
}

fn fmt() -> Result<(), String> {
    Step::cargo(&["fmt", "--all", "--check"]).run()
}

fn lint() -> Result<(), String> {
    install::ensure(BUILD)?;
    Step::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
}
