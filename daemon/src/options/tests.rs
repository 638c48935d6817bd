use super::*;
use proptest::prelude::*;

#[test]
fn a_phrase_is_trimmed_bounded_and_never_shown() {
    let phrase = Phrase::new("  correct horse battery staple lamp\n").unwrap();
    assert_eq!(phrase.expose(), "correct horse battery staple lamp");
    assert!(!format!("{phrase:?}").contains("horse"));
    assert_eq!(Phrase::new(" \n"), Err(OptionError::EmptyPhrase));
    assert_eq!(Phrase::new(&"a".repeat(2000)), Err(OptionError::LongPhrase(2000)));
    assert_eq!(Phrase::new("two\nlines"), Err(OptionError::UnprintablePhrase));
}

#[test]
fn node_names_follow_dns_1123() {
    for name in ["pc1", "pc-1.lab.example", "0"] {
        assert_eq!(name.parse::<NodeName>().unwrap().as_str(), name);
    }
    for name in ["", "PC1", "-pc", "pc-", "pc_1", "a..b", "pc 1", &"a".repeat(64)] {
        assert!(name.parse::<NodeName>().is_err(), "{name:?} was taken");
    }
}

#[test]
fn host_names_become_node_names() {
    for (host, name) in [("Anna's-iMac.local", "anna-s-imac.local"), ("PC_1", "pc-1"), ("-x-.", "x")] {
        assert_eq!(NodeName::from_host_name(host).unwrap().as_str(), name);
    }
    let error = NodeName::from_host_name("___").unwrap_err();
    assert!(error.to_string().contains("--name"), "{error}");
}

#[test]
fn labels_follow_kubernetes() {
    let label: Label = "lab.example/room=12".parse().unwrap();
    assert_eq!((label.key.as_str(), label.value.as_str()), ("lab.example/room", "12"));
    assert!("gpu=".parse::<Label>().is_ok());
    for text in ["gpu", "=x", "a b=c", "a=b c", "Lab/x=1", "-a=b", "a=b=c"] {
        assert!(text.parse::<Label>().is_err(), "{text:?} was taken");
    }
    let twice = ["a=1", "a=2"].map(|t| t.parse().unwrap()).to_vec();
    assert!(matches!(collect_labels(twice), Err(OptionError::LabelTwice { .. })));
}

#[test]
fn amounts_are_read_as_kubernetes_writes_them() {
    for (text, millis) in [("4", 4000), ("1.5", 1500), ("1500m", 1500), (".25", 250)] {
        assert_eq!(text.parse(), Ok(CpuMillis(millis)));
    }
    for text in ["", "0", "m", "-1", "1.5m", "four", "1e3", "99999999999999999999"] {
        assert!(text.parse::<CpuMillis>().is_err(), "{text:?} was taken");
    }
    for (text, bytes) in [("8Gi", 8 << 30), ("512Mi", 512 << 20), ("8G", 8_000_000_000), ("1.5Gi", 3 << 29)] {
        assert_eq!(text.parse(), Ok(MemoryBytes(bytes)));
    }
    for text in ["", "Gi", "8Xi", "8 Gi", "-8Gi", "99999999Pi"] {
        assert!(matches!(text.parse::<MemoryBytes>(), Err(OptionError::Memory(_))), "{text:?} was taken");
    }
    let error = "8".parse::<MemoryBytes>().unwrap_err();
    assert!(error.to_string().contains("8Gi"), "{error}");
}

#[test]
fn addresses_may_leave_parts_out() {
    for (text, address) in [
        ("0.0.0.0:1", "0.0.0.0:1"),
        ("10.0.0.1", "10.0.0.1:7474"),
        ("9000", "0.0.0.0:9000"),
        (":9000", "0.0.0.0:9000"),
        ("[::1]:9", "[::1]:9"),
        ("::1", "[::1]:7474"),
    ] {
        assert_eq!(parse_listen(text).unwrap(), address.parse().unwrap(), "{text}");
    }
    assert!(parse_listen("pc1").is_err() && parse_listen("1.2.3.4:99999").is_err());
    for (text, host, port) in [
        ("pc1", "pc1", 7474),
        ("pc1.lab:80", "pc1.lab", 80),
        ("10.0.0.1", "10.0.0.1", 7474),
        ("10.0.0.1:5", "10.0.0.1", 5),
        ("[fd00::1]:5", "fd00::1", 5),
        ("fd00::1", "fd00::1", 7474),
    ] {
        assert_eq!(text.parse(), Ok(PeerAddress { host: host.into(), port }));
    }
    for text in ["", "10.0.0.999", "pc1:0", "pc1:x", "a b", "http://pc1"] {
        assert!(text.parse::<PeerAddress>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn docker_hosts_are_sockets_or_tcp() {
    assert_eq!("/run/docker.sock".parse::<DockerHost>().unwrap().as_str(), "unix:///run/docker.sock");
    assert!("tcp://127.0.0.1:2375".parse::<DockerHost>().is_ok());
    for text in ["", "docker.sock", "ssh://pc1", "unix://relative", "tcp://"] {
        assert!(text.parse::<DockerHost>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn data_lies_where_the_desktop_keeps_data() {
    let user = Surroundings { home: Some("/home/anna".into()), ..Surroundings::default() };
    assert_eq!(user.data_dir().unwrap(), Path::new("/home/anna/.local/share/gaggle"));
    let xdg = Surroundings { xdg_data_home: Some("/data".into()), ..user.clone() };
    assert_eq!(xdg.data_dir().unwrap(), Path::new("/data/gaggle"));
    let root = Surroundings { root: true, ..xdg };
    assert_eq!(root.data_dir().unwrap(), Path::new("/var/lib/gaggle"));
    assert_eq!(Surroundings::default().data_dir(), Err(OptionError::NoHome));
}

proptest! {
    #[test]
    fn any_host_name_gives_a_valid_name_or_a_plain_refusal(host in "\\PC{0,80}") {
        match NodeName::from_host_name(&host) {
            Ok(name) => prop_assert!(name.as_str().parse::<NodeName>().is_ok()),
            Err(error) => prop_assert!(error.to_string().contains("--name")),
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same(millis in 1u64.., bytes in (64u64 << 20)..) {
        prop_assert_eq!(CpuMillis(millis).to_string().parse(), Ok(CpuMillis(millis)));
        prop_assert_eq!(MemoryBytes(bytes).to_string().parse(), Ok(MemoryBytes(bytes)));
    }
}
