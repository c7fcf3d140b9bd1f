use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::*;
use proptest::prelude::*;

fn parsed(input: &str) -> Address {
    input.parse().unwrap_or_else(|error| panic!("{input}: {error}"))
}

#[test]
fn every_accepted_form_means_what_the_table_says() {
    let unix = |path: &str| Address::unix(path).unwrap();
    let tcp = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
    let host = |name: &str, port| Address(Kind::Host(name.to_owned(), port));
    for (input, expected, printed) in [
        ("unix:rel", unix("rel"), "unix:rel"),
        ("unix:dir/rel.sock", unix("dir/rel.sock"), "unix:dir/rel.sock"),
        ("unix:./rel", unix("./rel"), "unix:./rel"),
        ("unix:./@rel", unix("@rel"), "unix:./@rel"),
        ("unix:%40rel", unix("./@rel"), "unix:./@rel"),
        ("unix:/@abs", unix("/@abs"), "unix:/@abs"),
        ("unix:/abs", unix("/abs"), "unix:/abs"),
        ("unix:///abs", unix("/abs"), "unix:/abs"),
        ("unix:////abs", unix("//abs"), "unix:////abs"),
        ("unix:/a%20b%25", unix("/a b%"), "unix:/a%20b%25"),
        ("unix:/é,a:b", unix("/é,a:b"), "unix:/%C3%A9,a:b"),
        ("unix:/a%2Cunix:/b", unix("/a,unix:/b"), "unix:/a%2Cunix:/b"),
        ("unix:/a,%20unix:/b%20", unix("/a, unix:/b "), "unix:/a,%20unix:/b%20"),
        ("unix:/a%0A", unix("/a\n"), "unix:/a%0A"),
        ("unix-abstract:name", Address::unix_abstract("name").unwrap(), "unix-abstract:name"),
        ("unix-abstract:/%2F%00", Address::unix_abstract("//\0").unwrap(), "unix-abstract:/%2F%00"),
        ("127.0.0.1:50051", tcp("127.0.0.1:50051"), "127.0.0.1:50051"),
        ("[::1]:50051", tcp("[::1]:50051"), "[::1]:50051"),
        ("[fe80::1%3]:1", tcp("[fe80::1%3]:1"), "[fe80::1%3]:1"),
        ("ipv4:127.0.0.1:50051", tcp("127.0.0.1:50051"), "127.0.0.1:50051"),
        ("ipv6:[::1]:50051", tcp("[::1]:50051"), "[::1]:50051"),
        ("127.0.0.1:0", tcp("127.0.0.1:0"), "127.0.0.1:0"),
        ("localhost:50051", host("localhost", 50051), "localhost:50051"),
        ("dns:localhost:50051", host("localhost", 50051), "localhost:50051"),
        ("dns:///localhost:50051", host("localhost", 50051), "localhost:50051"),
        ("http://localhost:50051", host("localhost", 50051), "localhost:50051"),
        ("http://localhost:50051/", host("localhost", 50051), "localhost:50051"),
        ("http://127.0.0.1:1", tcp("127.0.0.1:1"), "127.0.0.1:1"),
        ("dns:[::1]:1", tcp("[::1]:1"), "[::1]:1"),
        ("dns:unix:50051", host("unix", 50051), "dns:unix:50051"),
        ("http://unix-abstract:1", host("unix-abstract", 1), "dns:unix-abstract:1"),
        ("dns:ipv4:1", host("ipv4", 1), "dns:ipv4:1"),
        ("dns:ipv6:1", host("ipv6", 1), "dns:ipv6:1"),
        ("dns:///dns:1", host("dns", 1), "dns:dns:1"),
        ("dns:http:1", host("http", 1), "dns:http:1"),
        ("dns:https:1", host("https", 1), "dns:https:1"),
        ("UNIX:1", host("UNIX", 1), "UNIX:1"),
        ("my-host.example.:65535", host("my-host.example.", 65535), "my-host.example.:65535"),
    ] {
        assert_eq!(parsed(input), expected, "{input}");
        assert_eq!(expected.to_string(), printed, "{input}");
        assert_eq!(parsed(printed), expected, "{printed}");
    }
}

/// Strings that are not addresses, each with a part of its error.
const REJECTED: &[(&str, &str)] = &[
    ("", "write unix:/path/to/app.sock or 127.0.0.1:50051"),
    ("unix:", "write unix:/path/to/app.sock"),
    ("unix://", "write unix:/path/to/app.sock"),
    ("unix://rel", "write unix:relative/path or unix:///absolute/path"),
    ("unix://host/abs", "write unix:relative/path or unix:///absolute/path"),
    ("unix:/a%00b", "leave it out"),
    ("unix:/a%zz", "write a plain % as %25"),
    ("unix:/a%2", "write a plain % as %25"),
    ("unix:/a?b", "write ? as %3F"),
    ("unix:/a#b", "# as %23"),
    ("unix-abstract:", "write unix-abstract:name"),
    ("unix-abstract://name", "write unix-abstract:name"),
    ("/run/app.sock", "write unix:/run/app.sock"),
    ("./app.sock", "write unix:./app.sock"),
    ("run/app.sock", "write unix:run/app.sock"),
    ("~/app.sock", "write unix:/home/NAME/app.sock"),
    ("unix:~/run/app.sock", "write unix:/home/NAME/run/app.sock"),
    ("~root/app.sock", "the path of that user's directory, /app.sock"),
    ("unix:~root/app.sock", "the path of that user's directory, /app.sock"),
    ("app.sock", "write unix:app.sock"),
    ("unix:@app", "write unix-abstract:app (or unix:./@app for a file)"),
    ("unix://@app", "write unix-abstract:app (or unix:./@app for a file)"),
    ("@app", "write unix-abstract:app (or unix:./@app for a file)"),
    ("unix:@", "write unix-abstract:NAME (or unix:./@NAME for a file)"),
    ("99999", "a port is at most 65535"),
    ("50051", "write 127.0.0.1:50051"),
    ("localhost", "write localhost:50051"),
    ("localhost:", "write localhost:50051"),
    ("127.0.0.1", "write 127.0.0.1:50051"),
    ("[::1]", "write [::1]:50051"),
    ("http://localhost", "write http://localhost:50051"),
    ("dns:localhost", "write dns:localhost:50051"),
    ("localhost:65536", "write localhost:50051"),
    ("localhost:-1", "write localhost:50051"),
    ("localhost:+1", "write localhost:50051"),
    ("localhost:http", "write localhost:50051"),
    ("::1:50051", "write [::1]:50051"),
    ("::1", "write [::1]:50051"),
    ("[::1:50051", "write [::1]:50051"),
    ("[::1]50051", "write [::1]:50051"),
    ("[127.0.0.1]:1", "write [::1]:50051"),
    ("ipv4:[::1]:1", "write ipv4:127.0.0.1:50051"),
    ("ipv4:localhost:1", "write ipv4:127.0.0.1:50051"),
    ("ipv6:127.0.0.1:1", "write ipv6:[::1]:50051"),
    ("256.0.0.1:1", "write localhost:50051"),
    ("1.2.3:1", "write localhost:50051"),
    (":50051", "write 127.0.0.1:50051"),
    ("bad host:1", "write localhost:50051"),
    ("dns://8.8.8.8/localhost:1", "write dns:localhost:50051"),
    ("http:localhost:1", "write http://localhost:50051"),
    ("http://localhost:1/path", "write http://localhost:50051"),
    ("http://user@localhost:1", "write http://localhost:50051"),
    ("https://localhost:1", "write http://host:port or unix:/path"),
    ("https:localhost:1", "write http://host:port or unix:/path"),
    ("127.0.0.1:1,127.0.0.1:2", "give each alone"),
    ("ipv4:127.0.0.1:1,127.0.0.2:1", "give each alone"),
    ("unix:/a,unix:/b", "give each alone"),
    ("unix:/a,unix:/b", "Channel::builder([\"unix:/a\", \"unix:/b\"])"),
    ("unix:/a;unix-abstract:b", "a comma is %2C"),
    ("unix:/a, unix:/b", "give each alone"),
    ("unix:/a unix:/b", "give each alone"),
    ("unix:/a,dns:localhost:1", "give each alone"),
    ("/a,unix:/b", "give each alone"),
    ("unix-abstract:a,http://localhost:1", "give each alone"),
    (" unix:/a", "leave it out, as str::trim does"),
    ("unix:/a ", "leave it out, as str::trim does"),
    (" /a", "leave it out, as str::trim does"),
    ("localhost:1 ", "leave it out, as str::trim does"),
    ("xds:///service", "unknown scheme"),
    ("vsock:1:2", "unknown scheme"),
    ("http2://localhost:1", "unknown scheme"),
];

#[test]
fn every_rejected_form_says_what_to_write_instead() {
    for (input, remedy) in REJECTED {
        let error = input.parse::<Address>().expect_err(input).to_string();
        assert!(error.contains(remedy), "{input}: {error}");
        assert!(error.contains(input), "{input}: {error}");
    }
}

#[test]
fn the_end_of_a_line_is_no_part_of_an_address() {
    for input in ["unix:/a\n", "unix:/a\r\n", "127.0.0.1:1\n", "\tunix:/a"] {
        let error = input.parse::<Address>().unwrap_err();
        assert_eq!(error.kind(), AddressParseErrorKind::WhiteSpace, "{error}");
    }
    for (input, kind) in
        [("\n", AddressParseErrorKind::Empty), ("unix:/a\nunix:/b", AddressParseErrorKind::List)]
    {
        assert_eq!(input.parse::<Address>().unwrap_err().kind(), kind, "{input:?}");
    }
}

#[test]
fn whatever_becomes_an_address_is_taken() {
    fn take<A: TryInto<Address, Error: Into<AddressParseError>>>(
        address: A,
    ) -> Result<Address, AddressParseError> {
        address.try_into().map_err(Into::into)
    }
    let unix = Address::unix("/run/app.sock").unwrap();
    assert_eq!(take("unix:/run/app.sock").unwrap(), unix);
    let string = "unix:/run/app.sock".to_owned();
    assert_eq!(take(&string).unwrap(), unix);
    assert_eq!(take(string).unwrap(), unix);
    assert_eq!(take(Path::new("/run/app.sock")).unwrap(), unix);
    assert_eq!(take(PathBuf::from("/run/app.sock")).unwrap(), unix);
    assert_eq!(take(&unix).unwrap(), unix);
    assert_eq!(take(unix.clone()).unwrap(), unix);
    let tcp: SocketAddr = "127.0.0.1:1".parse().unwrap();
    assert_eq!(take(tcp).unwrap().to_string(), "127.0.0.1:1");
    let error = take("/run/app.sock").unwrap_err();
    assert_eq!(error.kind(), AddressParseErrorKind::BarePath);
    assert_eq!(error.input(), "/run/app.sock");
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn errors_stay_on_one_line() {
    let error = "x\ny\u{1b}[2J:\n".parse::<Address>().unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn abstract_names_have_at_most_107_bytes() {
    assert!(Address::unix_abstract(vec![b'a'; 107]).is_ok());
    assert!(Address::unix_abstract(vec![b'a'; 108]).is_err());
}

fn any_address() -> impl Strategy<Value = Address> {
    let path = prop::collection::vec(1u8.., 1..200)
        .prop_map(|bytes| Address::unix(OsString::from_vec(bytes)).unwrap());
    let slashed = "[/@]{0,4}[a-z%?# ,;]{1,9}([,; ](unix|dns):/)?[ \n]?"
        .prop_map(|path| Address::unix(path).unwrap());
    let name = prop::collection::vec(any::<u8>(), 1..=107)
        .prop_map(|bytes| Address::unix_abstract(bytes).unwrap());
    let slashed_name = "/{0,4}[a-z%]{1,9}".prop_map(|n| Address::unix_abstract(n).unwrap());
    let tcp = any::<SocketAddr>().prop_map(Address::from);
    let host = "[a-z][a-z0-9-]{0,20}[a-z]|unix(-abstract)?|ipv[46]|dns|https?";
    let host = (host, any::<u16>()).prop_map(|(host, port)| Address(Kind::Host(host, port)));
    prop_oneof![path, slashed, name, slashed_name, tcp, host]
}

proptest! {
    #[test]
    fn parsing_what_was_printed_gives_the_same_address(address in any_address()) {
        let printed = address.to_string();
        prop_assert_eq!(printed.parse::<Address>(), Ok(address), "{}", printed);
    }

    #[test]
    fn parsing_never_panics(input in any::<String>()) {
        let _ = input.parse::<Address>();
    }

    #[test]
    fn parsing_never_panics_near_the_grammar(
        input in "(unix|unix-abstract|ipv4|ipv6|dns|http|https|)[:/@\\[]{0,4}[a-z0-9.:%/\\[\\]é-]{0,12}(:[0-9]{0,6})?"
    ) {
        if let Ok(address) = input.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }
}
