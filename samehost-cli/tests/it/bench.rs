//! `samehost bench` as a user sees it. No figure is judged: only what is printed, what the exit
//! code is and what stays behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::available_parallelism;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Serving, directory, names_in, samehost, socket_in, text};

/// A run that goes on for an hour unless it is stopped, and has its first row at once.
const ENDLESS: [&str; 12] = [
    "--against",
    "none",
    "--raw=false",
    "--blocking=false",
    "--kind",
    "unary",
    "--concurrency",
    "1",
    "--duration",
    "1h",
    "--rounds",
    "1000",
];

const AGAINST_TCP: &str = "samehost over UDS against TCP loopback, both asleep";

/// Rounds of 10 ms.
const MANY_ROUNDS: [&str; 10] = [
    "--against",
    "none",
    "--kind",
    "unary",
    "--concurrency",
    "1",
    "--duration",
    "10s",
    "--rounds",
    "1000",
];

fn bench_command(arguments: &[&str]) -> Command {
    let mut command = samehost();
    command
        .arg("bench")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `bench` to its end with a temporary directory of its own, which has to be empty then.
fn bench(arguments: &[&str]) -> Output {
    let directory = directory();
    let output = bench_command(arguments).env("TMPDIR", directory.path()).output().unwrap();
    assert_empty(directory.path());
    output
}

fn assert_empty(directory: &Path) {
    assert_eq!(names_in(directory), [""; 0], "left behind");
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A `bench` in a process group of its own, as a shell gives it one, and a temporary directory.
struct Running {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
    directory: TempDir,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let directory = directory();
        let mut child = bench_command(arguments)
            .env("TMPDIR", directory.path())
            .process_group(0)
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, errors, directory }
    }

    /// Waits for a line that starts so on standard error.
    fn wait_for(&mut self, start: &str) {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert_ne!(self.errors.read_line(&mut line).unwrap(), 0, "no line {start:?}");
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The server processes, held so that their end can be waited for.
    fn servers(&self) -> Vec<OwnedFd> {
        let open = |pid| {
            let pid = Pid::from_raw(pid).unwrap();
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap()
        };
        self.children().into_iter().map(open).collect()
    }

    fn children(&self) -> Vec<i32> {
        let us = self.child.id().to_string();
        let entries = fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let children = pids.filter(|pid: &i32| {
            // A process may end meanwhile. The parent's id is the second field after the name.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            fields.split_whitespace().nth(1) == Some(&us)
        });
        children.collect()
    }

    /// Waits for the end; what standard error still had to say comes last.
    fn finish(mut self) -> (ExitStatus, String, String, TempDir) {
        let (mut out, mut errors) = (String::new(), String::new());
        self.errors.read_to_string(&mut errors).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (self.child.wait().unwrap(), out, errors, self.directory)
    }
}

/// Whether the process has ended, or does so within `seconds`.
fn has_ended(process: &OwnedFd, seconds: i64) -> bool {
    let mut exit = [PollFd::new(process, PollFlags::IN)];
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut exit, Some(&timeout)).unwrap() == 1
}

#[test]
fn it_compares_both_transports() {
    let output = bench(&["--calls", "64", "--rounds", "2", "--concurrency", "1,4", "--wide"]);
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
    for sentence in [
        AGAINST_TCP,
        "samehost against the bare socket over UDS, both asleep",
        "samehost against stock tonic over UDS, both asleep",
    ] {
        assert!(unwrapped(out).contains(sentence), "{out}");
    }
    let rows = |kind: &str, stack: &str, via: &str| {
        let cell = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some(kind) && words.nth(2) == Some(stack) && words.next() == Some(via)
        };
        out.lines().filter(cell).count()
    };
    for via in ["UDS", "TCP"] {
        for kind in ["unary", "stream", "bulk", "connect"] {
            assert_eq!(rows(kind, "samehost", via), 2, "{kind} {via}: {out}");
            assert_eq!(rows(kind, "tonic", via), 2, "{kind} {via}: {out}");
            let raw = usize::from(kind == "unary" || kind == "bulk");
            assert_eq!(rows(kind, "raw", via), raw, "{kind} {via}: {out}");
        }
    }
    assert!(errors.contains("round 2 of 2 done"), "{errors}");
}

#[test]
fn json_has_a_row_for_each_cell() {
    let report = json(&bench(&[
        "--json",
        "--raw=false",
        "--against",
        "none",
        "--calls",
        "30",
        "--rounds",
        "3",
        "--kind",
        "stream,unary,connect,bulk",
        "--payload",
        "0,65536",
        "--concurrency",
        "2",
    ]));
    assert_eq!(report["version"], 1);
    assert!(report["machine"]["cpus"].as_u64().unwrap() > 0);
    assert!(
        report["command"]
            .as_str()
            .unwrap()
            .contains("bench --json --raw=false --against none --calls 30")
    );
    let rows = report["rows"].as_array().unwrap();
    let mut cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let word = |key: &str| row[key].as_str().unwrap();
            (word("kind"), row["payload_bytes"].as_u64().unwrap(), word("transport"))
        })
        .collect();
    cells.sort_unstable();
    let expected = ["bulk", "connect", "stream", "unary"].map(|kind| {
        [0, 65536].map(|payload| ["tcp", "uds"].map(|transport| (kind, payload, transport)))
    });
    assert_eq!(cells, expected.concat().concat());
    for row in rows {
        assert_eq!(row["stack"], "samehost");
        assert_eq!(row["stubs"], "samehost");
        assert_eq!(row["wait"], "block");
        let connections = if row["kind"] == "connect" { 2 } else { 1 };
        for (key, value) in
            [("concurrency", 2), ("connections", connections), ("threads", 1), ("calls", 30)]
        {
            assert_eq!(row[key], value, "{key}");
        }
        let payload = row["payload_bytes"].as_f64().unwrap();
        let calls_per_second = row["calls_per_second"].as_f64().unwrap();
        let bytes_per_second = row["bytes_per_second"].as_f64().unwrap();
        assert!((bytes_per_second - calls_per_second * payload).abs() <= payload, "{row}");
        for key in ["calls_per_second", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}: {row}");
        }
        for key in ["cpu_us_per_call", "context_switches_per_call", "resident_mib"] {
            for end in ["client", "server"] {
                assert!(row[format!("{end}_{key}")].as_f64().unwrap() >= 0.0, "{key}: {row}");
            }
        }
        assert!(row["spread"].as_f64().unwrap() >= 0.0, "{row}");
        assert!(row["p50_us"].as_f64() <= row["max_us"].as_f64(), "{row}");
        assert_eq!(row.as_object().unwrap().len(), 24, "{row}");
    }
}

/// The cells of a report, each as stack (and stubs that are not its own), transport, wait, kind, payload, concurrency, connections.
fn cells(report: &Value) -> Vec<String> {
    let cell = |row: &Value| {
        let rest = ["transport", "wait", "kind", "payload_bytes", "concurrency", "connections"]
            .map(|key| row[key].to_string().replace('"', ""))
            .join(" ");
        let stack = row["stack"].as_str().unwrap();
        match row["stubs"].as_str() {
            Some(stubs) if stubs != stack => format!("{stack}/{stubs} {rest}"),
            _ => format!("{stack} {rest}"),
        }
    };
    report["rows"].as_array().unwrap().iter().map(cell).collect()
}

#[test]
fn bare_sockets_are_measured_one_message_at_a_time() {
    let report = json(&bench(&[
        "--json",
        "--calls",
        "300",
        "--rounds",
        "2",
        "--kind",
        "unary,bulk",
        "--payload",
        "1000",
        "--concurrency",
        "1,3",
        "--busy-poll",
        "50us",
    ]));
    // Where one process would only keep the CPU from the other, none spins.
    let both = available_parallelism().unwrap().get() > 1;
    let waits: &[_] = if both { &["block", "spin"] } else { &["block"] };
    let raw: Vec<_> = cells(&report).into_iter().filter(|cell| cell.starts_with("raw ")).collect();
    let mut expected = Vec::new();
    for kind in ["unary", "bulk"] {
        for wait in waits {
            for transport in ["uds", "tcp"] {
                expected.push(format!("raw {transport} {wait} {kind} 1000 1 1"));
            }
        }
    }
    assert_eq!(raw, expected);
    let ours = |wait: &str| format!("samehost uds {wait} unary 1000 1 1");
    let both_ways = waits.iter().all(|wait| cells(&report).contains(&ours(wait)));
    assert!(both_ways, "asleep, and where it can spin, spinning too: {report}");
    for row in report["rows"].as_array().unwrap() {
        assert_eq!(row["calls"], 300, "{row}");
        assert!(row["server_cpu_us_per_call"].as_f64().unwrap() >= 0.0, "{row}");
    }
}

#[test]
fn the_client_without_a_runtime_is_measured_one_call_at_a_time() {
    let short = ["--calls", "8", "--rounds", "2", "--concurrency", "1,2", "--raw=false"];
    let short = [&short[..], &["--against", "none", "--payload", "100", "--json"]].concat();
    let report = json(&bench(&short));
    let blocking = |report: &Value| -> Vec<String> {
        cells(report).into_iter().filter(|cell| cell.starts_with("blocking")).collect()
    };
    let expected = ["uds", "tcp"].map(|via| format!("blocking/samehost {via} block unary 100 1 1"));
    assert_eq!(blocking(&report), expected);
    for row in report["rows"].as_array().unwrap() {
        assert_eq!(row["calls"], 8, "{row}");
    }
    assert!(blocking(&json(&bench(&[&short[..], &["--blocking=false"]].concat()))).is_empty());
}

#[test]
fn both_kinds_of_stub_are_measured() {
    let short = ["--calls", "8", "--rounds", "2", "--concurrency", "2", "--raw=false"];
    let every = [&short[..], &["--stubs", "samehost,tonic"]].concat();
    let report = json(&bench(&[&every[..], &["--json"]].concat()));
    let rows = report["rows"].as_array().unwrap();
    for kind in ["unary", "stream", "bulk", "connect"] {
        let stubs: Vec<_> = rows
            .iter()
            .filter(|row| row["kind"] == kind && row["transport"] == "uds")
            .map(|row| (row["stack"].as_str().unwrap(), row["stubs"].as_str().unwrap()))
            .collect();
        // tonic's own transport has tonic's own stubs.
        let expected = [("samehost", "samehost"), ("samehost", "tonic"), ("tonic", "tonic")];
        assert_eq!(stubs, expected, "{kind}");
    }
    let output = bench(&every);
    let out = text(&output.stdout);
    assert!(unwrapped(out).contains("samehost's stubs against tonic's"), "{out}");
    assert!(out.contains(" samehost/tonic "), "{out}");
    let only = ["--calls", "8", "--rounds", "2", "--kind", "unary", "--concurrency", "1"];
    let only = [&only[..], &["--stubs", "tonic", "--against", "none", "--json"]].concat();
    assert!(cells(&json(&bench(&only)))[0].starts_with("samehost/tonic uds block unary"));
}

#[test]
fn payloads_are_handed_over_in_memory_and_beside_it() {
    let short = ["--kind", "bulk", "--memory", "--calls", "4", "--rounds", "2"];
    let every = [&short[..], &["--payload", "1000000,4194304", "--stubs", "samehost,tonic"]];
    let directory = directory();
    let report = directory.path().to_str().unwrap();
    let output = bench(&[&every.concat()[..], &["--report", report]].concat());
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(names_in(directory.path()).contains(&"memory.svg".to_owned()), "{errors}");
    let report = fs::read_to_string(directory.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let ways: Vec<_> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or("no").to_owned();
            assert_eq!((text("transport"), text("kind")), ("uds".into(), "bulk".into()));
            format!(
                "{} {} {} {} {}",
                row["payload_bytes"],
                row["read"],
                text("stack"),
                text("stubs"),
                text("carrier")
            )
        })
        .collect();
    let mut expected = Vec::new();
    for payload in ["1000000", "4194304"] {
        for read in ["false", "true"] {
            for way in [
                "samehost samehost sealed_once",
                "samehost samehost sealed_anew",
                "samehost samehost message",
                "samehost tonic sealed_once",
                "samehost tonic sealed_anew",
                "samehost tonic message",
                "tonic tonic message",
                "raw no socket",
            ] {
                expected.push(format!("{payload} {read} {way}"));
            }
        }
    }
    assert_eq!(ways, expected);
    let sentence = "memory sealed once, sent again and mapped, against the bare socket's copy, both \
                    asleep while they wait, payloads of 4 MiB: ";
    assert!(unwrapped(out).contains(sentence), "{out}");
    assert!(unwrapped(out).contains("against a message, both asleep"), "{out}");
    let narrow =
        lines_for("60", &[&short[..3], &["--payload", "1000000", "--against=none"]].concat());
    let too_long: Vec<_> = narrow.iter().filter(|line| line.chars().count() > 60).collect();
    assert!(too_long.is_empty(), "{too_long:#?}");
}

#[test]
fn calls_are_spread_over_connections() {
    let report = json(&bench(&[
        "--json",
        "--raw=false",
        "--blocking=false",
        "--against=none",
        "--calls",
        "60",
        "--rounds",
        "1",
        "--kind",
        "unary",
        "--concurrency",
        "1,4",
        "--connections",
        "1,3",
    ]));
    let cell = |transport, counts| format!("samehost {transport} block unary 1024 {counts}");
    let expected = ["1 1", "4 1", "4 3"].map(|counts| ["uds", "tcp"].map(|via| cell(via, counts)));
    assert_eq!(cells(&report), expected.concat());
}

/// Returns the number of a CPU that this process may use, by proc_pid_status(5).
fn own_cpu() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    allowed.trim().split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn processes_can_be_pinned() {
    let cpu = own_cpu();
    let pin = format!("{cpu},{cpu}");
    let mut running =
        Running::start(&[&MANY_ROUNDS[..], &["--pin", &pin, "--busy-poll", "50us"]].concat());
    running.wait_for("measuring");
    let mut servers = 0;
    for pid in running.children().into_iter().chain([running.child.id().cast_signed()]) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            assert!(status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")), "{status}");
        }
        servers += 1;
    }
    assert_eq!(servers, 5, "samehost and raw on both transports, and the client");
    running.wait_for("round 1 of 1000");
    rustix::process::kill_process(running.pid(), Signal::INT).unwrap();
    let (_, out, _, _) = running.finish();
    assert!(out.contains(&format!("1 thread each, both on CPU {cpu}")), "{out}");
    assert!(out.contains("Busy polling is off"), "{out}");
}

#[test]
fn tonic_is_measured_beside_it() {
    let report = json(&bench(&[
        "--json",
        "--raw=false",
        "--calls",
        "40",
        "--rounds",
        "2",
        "--concurrency",
        "2",
    ]));
    let expected = [
        ("unary", "1024 2 1"),
        ("stream", "1024 2 1"),
        ("bulk", "1048576 2 1"),
        ("connect", "1024 2 2"),
    ]
    .map(|(kind, counts)| {
        ["samehost", "tonic"]
            .map(|stack| ["uds", "tcp"].map(|via| format!("{stack} {via} block {kind} {counts}")))
    });
    assert_eq!(cells(&report), expected.concat().concat());
}

#[test]
fn it_runs_for_a_time_and_on_several_threads() {
    let report = json(&bench(&[
        "--json",
        "--duration",
        "20ms",
        "--rounds",
        "2",
        "--concurrency",
        "3",
        "--threads",
        "2",
        "--against",
        "none",
    ]));
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert_eq!(row["threads"], 2);
        assert!(row["calls"].as_u64().unwrap() >= 6, "each worker calls in each round: {row}");
    }
}

#[test]
fn the_largest_payload_fits() {
    let largest = (16 * 1024 * 1024).to_string();
    let size = ["--payload", &largest, "--calls", "2", "--rounds", "1", "--concurrency", "1"];
    assert!(bench(&size).status.success());
}

#[test]
fn wrong_usage_exits_with_2_and_says_why() {
    for (arguments, why) in [
        ("--calls 0", "write 1 or more"),
        ("--calls -5", "write 1 or more"),
        ("--calls 10 --rounds 5 --concurrency 4", "give at least 20"),
        ("--calls 5 --duration 1s", "cannot be used with"),
        ("--duration 0", "is zero"),
        ("--duration -1", "negative"),
        ("--rounds 0", "write 1 to 1000"),
        ("--rounds 1000000", "write 1 to 1000"),
        ("--threads 0", "write 1 to 1024"),
        ("--payload 16777217", "over 16 MiB"),
        ("--payload 67108865 --kind bulk --memory", "over 64 MiB"),
        ("--memory", "add --kind bulk"),
        ("--memory --kind bulk --address unix:/tmp/x.sock", "cannot be used with"),
        ("--payload -1", "is no size"),
        ("--payload 1,1", "twice"),
        ("--payload 1,,2", "missing"),
        ("--payload=", "missing"),
        ("--concurrency 0", "1 to 4096"),
        ("--concurrency 1,99999999999999999999", "1 to 4096"),
        ("--concurrency 16,16", "twice"),
        ("--kind unary,unary", "twice"),
        ("--kind unary,other", "write unary, stream, bulk, connect or several"),
        ("--connections 0", "1 to 4096"),
        ("--connections 4 --concurrency 1,2 --kind unary", "more --connections than calls"),
        ("--connections 2 --concurrency 1", "in flight of unary: give a higher --concurrency"),
        ("--connections 2", "in flight of stream"),
        ("--pin 0", "SERVER_CPU,CLIENT_CPU"),
        ("--pin CPU,123456", "no CPU 123456"),
        ("--pin CPU,CPU --address unix:/tmp/x.sock", "cannot be used with"),
        ("--raw --address unix:/tmp/x.sock", "needs a server of its own"),
        ("--raw=perhaps", "invalid value"),
        ("--blocking=true --stubs tonic", "--stubs samehost"),
        ("--blocking --kind bulk --memory", "--kind unary"),
        ("--blocking --concurrency 2", "--concurrency 1"),
        ("--against other", "invalid value"),
        ("--stubs both", "write samehost, tonic or samehost,tonic"),
        ("--stubs tonic,tonic", "twice"),
        ("--busy-poll 0", "is zero"),
        ("--compare x.json --json", "cannot be used with"),
        ("--kind=", "missing"),
        ("--address /tmp/x.sock", "unix:/tmp/x.sock"),
        ("somewhere", "unexpected argument"),
    ] {
        let arguments = arguments.replace("CPU", &own_cpu());
        let output = bench(&arguments.split(' ').collect::<Vec<_>>());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {errors}");
        assert!(errors.contains(why), "{arguments}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

/// A short run, with all that the plots show.
const SHORT: [&str; 12] = [
    "--against",
    "none",
    "--raw=false",
    "--blocking=false",
    "--kind",
    "unary,bulk",
    "--concurrency",
    "1,2",
    "--calls",
    "4",
    "--rounds",
    "2",
];

#[test]
fn a_report_is_a_page_of_its_own_and_its_data() {
    let directory = directory();
    let report = directory.path().join("made/for it");
    let output = bench(&[&SHORT[..], &["--json", "--report", report.to_str().unwrap()]].concat());
    let printed = json(&output);
    assert_eq!(
        names_in(&report),
        [
            "bytes.svg",
            "calls.svg",
            "latency-many.svg",
            "latency.svg",
            "report.html",
            "report.json",
            "time.svg"
        ]
    );
    let read = |name: &str| fs::read_to_string(report.join(name)).unwrap();
    let saved: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(saved, printed);
    let payloads: Vec<_> = saved["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["kind"] == "bulk" && row["transport"] == "uds")
        .filter(|row| row["concurrency"] == 1)
        .map(|row| row["payload_bytes"].as_u64().unwrap())
        .collect();
    assert_eq!((payloads.first(), payloads.last()), (Some(&64), Some(&(16 << 20))));

    let page = read("report.html");
    assert!(!page.contains("{{"), "a part of the page is missing");
    for elsewhere in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere} needs another file");
    }
    for plot in ["bytes", "calls", "latency-many", "latency", "time"] {
        assert!(page.contains(&read(&format!("{plot}.svg"))), "{plot}");
    }
    for part in [
        AGAINST_TCP,
        "bench --against none --raw=false",
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<tr>").count(), 1 + saved["rows"].as_array().unwrap().len());
}

#[test]
fn a_report_says_what_it_wrote_and_replaces_an_earlier_ones_plots() {
    let directory = directory();
    let report = directory.path().to_str().unwrap();
    let own = directory.path().join("notes.svg");
    fs::write(&own, "").unwrap();
    fs::write(directory.path().join("latency-many.svg"), "").unwrap();
    let output = bench(&[
        "--against=none",
        "--raw=false",
        "--blocking=false",
        "--kind=unary",
        "--concurrency=1",
        "--calls=4",
        "--rounds=1",
        "--report",
        report,
    ]);
    let errors = text(&output.stderr);
    let wrote =
        format!("samehost: wrote report.json, report.html, latency.svg, time.svg to {report}");
    assert!(errors.contains(&wrote), "{errors}");
    let names = names_in(directory.path());
    assert_eq!(names, ["latency.svg", "notes.svg", "report.html", "report.json", "time.svg"]);
    let out = text(&output.stdout);
    assert!(out.starts_with("Not certain: "), "{out}");
    assert!(unwrapped(out).contains("there is one round only"), "{out}");
}

/// As one line, so that it matters not where the lines break.
fn unwrapped(text: &str) -> String {
    text.replace('\n', " ")
}

/// The lines of a default run with few calls, for a terminal of so many columns.
fn lines_for(columns: &str, options: &[&str]) -> Vec<String> {
    let short = ["--calls", "128", "--rounds", "2"];
    let arguments = [&short[..], options].concat();
    let output = bench_command(&arguments).env("COLUMNS", columns).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn the_default_run_has_all_stacks_and_fits_the_terminal() {
    for (columns, width) in [("80", 80), ("60", 60)] {
        let lines = lines_for(columns, &[]);
        let too_long: Vec<_> = lines.iter().filter(|line| line.chars().count() > width).collect();
        assert!(too_long.is_empty(), "{too_long:#?}");
        let has = |what: &str, stack: &str, via: &str| {
            lines.iter().any(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                line.starts_with(what) && words.get(5..7) == Some(&[stack, via])
            })
        };
        for via in ["UDS", "TCP"] {
            for stack in ["samehost", "tonic"] {
                for what in [
                    "unary 1 KiB × 1 ",
                    "unary 1 KiB × 64 ",
                    "stream 1 KiB × 1 ",
                    "bulk 1 MiB × 1 ",
                    "connect 1 KiB × 1 ",
                ] {
                    assert!(has(what, stack, via), "{what} {stack} {via}: {lines:#?}");
                }
            }
            assert!(has("unary 1 KiB × 1 ", "raw", via), "{lines:#?}");
            assert!(has("bulk 1 MiB × 1 ", "raw", via), "{lines:#?}");
        }
    }
    let wide = lines_for("60", &["--wide", "--kind", "unary"]);
    assert!(wide.iter().any(|line| line.contains("switches")), "{wide:#?}");
}

#[test]
fn an_earlier_report_is_compared() {
    let directory = directory();
    let old = directory.path().join("old.json");
    let earlier = bench(&[&SHORT[..], &["--json"]].concat());
    // As if everything had been so much faster that the machine's load makes no difference.
    let mut report = json(&earlier);
    for row in report["rows"].as_array_mut().unwrap() {
        let calls_per_second = row["calls_per_second"].as_f64().unwrap();
        row["calls_per_second"] = (calls_per_second * 1e9).into();
        row["spread"] = 0.0.into();
    }
    // As another version of the command may write it.
    report["machine"]["unheard_of"] = true.into();
    report["rows"].as_array_mut().unwrap().pop();
    fs::write(&old, report.to_string()).unwrap();
    let arguments = [&SHORT[..], &["--compare", old.to_str().unwrap()]].concat();
    let output = bench(&arguments);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let changes = out.split_once("Since ").unwrap().1;
    assert!(changes.contains("Not in it: 1 cells."), "{changes}");
    let rows = changes.lines().filter(|line| line.contains(" samehost "));
    assert_eq!(rows.clone().count(), 7, "{changes}");
    for row in rows {
        assert!(row.contains("-100."), "{row}");
    }
}

#[test]
fn a_report_that_is_none_is_named_before_anything_is_measured() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("no.json"), "{}").unwrap();
    fs::write(path("newer.json"), r#"{"version":2,"machine":{},"rows":[]}"#).unwrap();
    for (option, file, why) in [
        ("--compare", "missing.json", "No such file"),
        ("--compare", "no.json", "missing field"),
        ("--compare", "newer.json", "version 2 is not known"),
        ("--report", "no.json", "give another --report"),
    ] {
        let output = bench(&[option, &path(file)]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(file) && errors.contains(why), "{errors}");
    }
}

#[test]
fn an_interrupt_prints_what_was_measured_and_leaves_nothing() {
    let mut running = Running::start(&MANY_ROUNDS);
    running.wait_for("round 2 of 1000");
    let servers = running.servers();
    assert_eq!(servers.len(), 4, "ours and raw");
    // As Ctrl-C does: to the whole group.
    rustix::process::kill_process_group(running.pid(), Signal::INT).unwrap();
    let (status, out, errors, directory) = running.finish();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(out.starts_with("Not certain: the run was interrupted"), "{out}");
    assert!(unwrapped(&out).contains("let it run to its end"), "{out}");
    assert!(errors.contains("interrupted"), "{errors}");
    assert!(servers.iter().all(|server| has_ended(server, 0)));
    assert_empty(directory.path());
}

#[test]
fn an_interrupt_before_the_first_row_exits_with_1() {
    let mut running = Running::start(&ENDLESS);
    running.wait_for("measuring 2 cells");
    let servers = running.servers();
    rustix::process::kill_process(running.pid(), Signal::TERM).unwrap();
    let (status, out, errors, directory) = running.finish();
    assert_eq!(status.code(), Some(1));
    assert_eq!(out, "");
    assert_eq!(errors, "samehost: interrupted before anything was measured\n");
    assert!(servers.iter().all(|server| has_ended(server, 0)));
    assert_empty(directory.path());
}

#[test]
fn killed_it_leaves_nothing() {
    let mut running = Running::start(&ENDLESS);
    running.wait_for("measuring 2 cells");
    let servers = running.servers();
    assert_eq!(servers.len(), 2);
    rustix::process::kill_process_group(running.pid(), Signal::KILL).unwrap();
    let (status, _, _, directory) = running.finish();
    assert_eq!(status.signal(), Some(9));
    assert!(servers.iter().all(|server| has_ended(server, 10)));
    assert_empty(directory.path());
}

#[test]
fn a_server_that_is_killed_ends_the_run() {
    let mut running = Running::start(&ENDLESS);
    running.wait_for("measuring 2 cells");
    let servers = running.servers();
    for server in &servers {
        rustix::process::pidfd_send_signal(server, Signal::KILL).unwrap();
    }
    let (status, out, errors, directory) = running.finish();
    assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    assert!(errors.contains("unix:") || errors.contains("127.0.0.1:"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(servers.iter().all(|server| has_ended(server, 0)));
    assert_empty(directory.path());
}

/// A `samehost serve`, its address and the directory of its socket.
fn serve() -> (Serving, String, TempDir) {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    (Serving::start(&[&address], &["--busy-poll", "50us"]), address, directory)
}

#[test]
fn a_running_server_is_measured_by_its_address() {
    let (_server, address, _directory) = serve();
    let report = json(&bench(&[
        "--json",
        "--address",
        &address,
        "--calls",
        "16",
        "--rounds",
        "2",
        "--concurrency",
        "2",
    ]));
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["transport"], "uds");
        assert!(row["server_cpu_us_per_call"].is_null());
        assert!(row["client_cpu_us_per_call"].is_number());
    }

    let output = bench(&["--address", &address, "--calls", "16", "--concurrency", "1"]);
    assert!(output.status.success());
    let out = text(&output.stdout);
    assert!(out.contains(" UDS "), "{out}");
    assert!(!out.contains("samehost over UDS against"), "nothing to compare: {out}");
}

#[test]
fn of_a_running_server_nothing_is_said_that_is_not_known() {
    let (_server, address, directory) = serve();
    let report = directory.path().join("report");
    let short = ["--kind", "unary", "--calls", "16", "--concurrency", "1"];
    let short = [&short[..], &["--address", &address]].concat();
    let both = ["--stubs", "samehost,tonic", "--report", report.to_str().unwrap()];
    let output = bench(&[&short[..], &both].concat());
    let out = unwrapped(text(&output.stdout));
    assert!(out.contains("both on samehost over UDS, the client asleep while it waits"), "{out}");
    assert!(out.contains("The client: 1 thread; the server is one that was running."), "{out}");
    let plot = fs::read_to_string(report.join("overview.svg")).unwrap();
    assert!(plot.contains("The client sleeps while it waits; 1 thread"), "{plot}");
    bench(&[&short[..], &["--busy-poll", "50us", "--report", report.to_str().unwrap()]].concat());
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    for text in [&out, &plot, &page] {
        for unknown in ["both asleep", "Both ends", "two processes"] {
            assert!(!text.contains(unknown), "{unknown}: {text}");
        }
    }
}

#[test]
fn a_running_server_that_goes_away_is_named() {
    let (server, address, directory) = serve();
    let report = directory.path().join("report");
    let options = ["--address", &address, "--json", "--report", report.to_str().unwrap()];
    let mut running = Running::start(&[&MANY_ROUNDS[..], &options].concat());
    running.wait_for("round 2 of 1000");
    server.signal(Signal::KILL);
    let (status, out, errors, _) = running.finish();
    assert_eq!(status.code(), Some(1), "{errors}");
    let lines: Vec<_> = errors.lines().filter(|line| !line.starts_with("round ")).collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert_eq!(lines[0], "samehost: interrupted: this is what was measured so far");
    assert!(lines[1].starts_with("samehost: wrote report.json"), "{errors}");
    assert!(lines[2].starts_with("samehost: ") && lines[2].contains(&address), "{errors}");
    // What was measured before is not lost.
    let written = fs::read_to_string(report.join("report.json")).unwrap();
    for text in [&out, &written] {
        let report: Value = serde_json::from_str(text).unwrap();
        assert_eq!(report["interrupted"], true);
        assert_eq!(report["rows"].as_array().unwrap().len(), 1, "{report}");
    }
}

#[test]
fn an_address_without_a_server_is_named() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let output = bench(&["--address", &address, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains(&format!("no server is listening at {address}")));
}

#[test]
fn without_a_place_for_the_socket_it_says_what_to_do() {
    let output = bench_command(&[]).env("TMPDIR", "/nonexistent").output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("/nonexistent") && errors.contains("set TMPDIR"), "{errors}");
}
