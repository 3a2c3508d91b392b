//! Every role in one binary: `ringkit -target=…` runs a process, `ringkit dev` a whole cluster in one process.

mod config;
mod dev;

use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str = "\
usage: ringkit [flags]           run the roles of -target (default: all) in this process
       ringkit dev [flags]       run a whole cluster in this process; see `ringkit dev --help`
       ringkit config show       print the effective configuration; --origins says where each value came from,
                                 --diff prints only what differs from the defaults; flags as for a run
       ringkit config schema     print a JSON Schema of the configuration file, for editors
       ringkit config reference  print every key with its default

Flags are Cortex's, such as -config.file=FILE, -target=LIST, -server.http-listen-port=PORT; -help lists them.
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("dev") => dev::main(args),
        Some("config") => config::main(args),
        Some("help" | "--help" | "-h") => {
            let _ = std::io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        _ => ringkit_server::main("all", ringkit::roles::ALL),
    }
}
