//! The texts of several kernels, texts that are none, and this machine.

use std::path::Path;

use proptest::prelude::*;

use super::reading::{self, Measurements};
use super::{parse, wit};

const STAT: &str = "\
cpu  10 20 30 400 50 6 7 8 10 0
cpu0 1 2 3 4 5 6 7 8 9 10
cpu2 1 1 1 1
intr 33 0 1
btime 1700000000
";

#[test]
fn processor_time_is_in_milliseconds_and_cores_keep_their_numbers() {
    let stat = parse::stat(STAT).unwrap();
    assert_eq!(
        (stat.total.user, stat.total.disk_wait, stat.total.stolen),
        (100, 500, 80)
    );
    let numbers: Vec<u32> = stat.cores.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 2]);
    assert_eq!(
        stat.cores[1].1.disk_wait, 0,
        "an old kernel has four columns"
    );
    assert_eq!(stat.booted_ms, Some(1_700_000_000_000));
    for text in ["", "cpu", "cpu  1 2", "cpu  a b c d", "intr 1"] {
        assert!(parse::stat(text).is_none(), "{text}");
    }
}

#[test]
fn load_and_uptime_are_numbers_or_nothing() {
    let load = parse::load("0.52 0.58 0.59 1/467 12345\n").unwrap();
    assert_eq!((load.one_minute, load.fifteen_minutes), (0.52, 0.59));
    for text in ["", "0.1 0.2", "a b c", "inf nan 1"] {
        assert!(parse::load(text).is_none(), "{text}");
    }
    assert_eq!(parse::uptime_ms("350735.47 234388.90\n"), Some(350_735_470));
    assert_eq!(parse::uptime_ms("0.05 0.00\n"), Some(50));
    for text in [
        "",
        "12",
        "12.5 1.0",
        "a.bc",
        "-1.00 1.00",
        "99999999999999999999.00",
    ] {
        assert_eq!(parse::uptime_ms(text), None, "{text}");
    }
}

#[test]
fn memory_of_an_old_kernel_has_no_estimate_of_what_is_available() {
    let text = "MemTotal:  100 kB\nMemFree:  50 kB\nBuffers: 1 kB\nCached: 7 kB\nSwapTotal: 0 kB\n";
    let memory = parse::memory(text).unwrap();
    assert_eq!(
        (memory.total, memory.free, memory.available),
        (102_400, 51_200, None)
    );
    assert_eq!(
        (memory.cached, memory.swap_total, memory.swap_free),
        (Some(7_168), Some(0), None)
    );
    assert!(parse::memory("MemTotal:  a lot\n").is_none());
}

#[test]
fn interfaces_have_both_ways_and_strange_lines_are_passed_over() {
    let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n\
                br0:1: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n eth0: 1 2\n broken\n";
    let network = parse::network(text);
    let names: Vec<&str> = network.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["lo", "br0:1"]);
    assert_eq!(
        (network[0].received_dropped, network[0].sent_dropped),
        (4, 8)
    );
}

#[test]
fn disks_are_those_that_were_used_and_neither_files_nor_memory() {
    let text = "   7       0 loop0 5 0 8 1 0 0 0 0 0 1 1\n 179       0 mmcblk0 10 1 16 3 20 2 32 5 0 77 9 0 0 0 0\n   8       0 sda 0 0 0 0 0 0 0 0 0 0 0\n 8 1 short 1\n";
    let devices = parse::devices(text);
    assert_eq!(devices.len(), 1);
    let card = &devices[0];
    assert_eq!(
        (card.name.as_str(), card.reads, card.writes, card.busy),
        ("mmcblk0", 10, 20, 77)
    );
    assert_eq!((card.read_bytes, card.written_bytes), (16 * 512, 32 * 512));
}

#[test]
fn file_systems_of_servers_and_of_the_kernel_are_left_out() {
    let text = "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n/dev/mmcblk0p2 /again ext4 rw 0 0\nserver:/a /mnt nfs4 rw 0 0\n\
                proc /proc proc rw 0 0\nubi0:data /my\\040data ubifs ro,relatime 0 0\nshort\n";
    let mounts = parse::mounts(text);
    let paths: Vec<&str> = mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/", "/my data"]);
    assert_eq!(
        (mounts[0].is_read_only, mounts[1].is_read_only),
        (false, true)
    );
}

#[test]
fn sensors_are_named_by_zone_or_by_chip_and_label() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("zones/thermal_zone0/type", "cpu-thermal\n");
    write("zones/thermal_zone0/temp", "48312\n");
    write("zones/thermal_zone1/type", "off\n");
    write("zones/cooling_device0/type", "fan\n");
    write("chips/hwmon0/name", "nvme\n");
    write("chips/hwmon0/temp1_input", "-5000\n");
    write("chips/hwmon0/temp1_label", "Composite\n");
    write("chips/hwmon0/temp3_input", "1000\n");
    let shown = |found: Vec<wit::Temperature>| -> Vec<(String, f64)> {
        found
            .into_iter()
            .map(|one| (one.sensor, one.celsius))
            .collect()
    };
    let zones = reading::thermal_zones(&folder.path().join("zones"));
    assert_eq!(shown(zones), [("cpu-thermal".to_owned(), 48.312)]);
    let chips = reading::chips(&folder.path().join("chips"));
    let expected = [
        ("nvme Composite".to_owned(), -5.0),
        ("nvme temp3".to_owned(), 1.0),
    ];
    assert_eq!(shown(chips), expected);
    assert!(reading::chips(Path::new("/nothing/here")).is_empty());
}

#[tokio::test]
async fn this_machine_is_measured_and_asking_at_once_returns_the_same() {
    let measurements = Measurements::default();
    let first = measurements.cpu.read(reading::cpu).await.unwrap();
    assert!(first.uptime > 0 && first.total.idle > 0 && !first.cores.is_empty());
    let memory = measurements.memory.read(reading::memory).await.unwrap();
    assert!(memory.total > memory.free);
    assert!(
        !measurements
            .network
            .read(reading::network)
            .await
            .unwrap()
            .is_empty()
    );
    measurements.disks.read(reading::disks).await.unwrap();
    measurements
        .temperatures
        .read(reading::temperatures)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_stands_for_a_while_and_is_then_read_again() {
    let part = reading::Part::<u32>::default();
    assert_eq!(*part.read(|| Ok(1)).await.unwrap(), 1);
    while *part.read(|| Ok(2)).await.unwrap() == 1 {
        tokio::task::yield_now().await;
    }
    let failing = reading::Part::<u32>::default();
    let error = failing
        .read(|| Err(std::io::Error::other("no sensor")))
        .await;
    assert_eq!(error.unwrap_err(), "no sensor");
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "(cpu[0-9]{0,3}|btime|MemTotal:|MemFree:|/dev/a|ext4|loop|[a-z:\\\\ .\n\t-]|[0-9]{1,22}|kB){0,60}") {
        let _ = (parse::stat(&text), parse::load(&text), parse::uptime_ms(&text), parse::memory(&text));
        let _ = (parse::network(&text), parse::devices(&text), parse::mounts(&text), parse::celsius(&text));
    }

    #[test]
    fn what_is_written_is_read_back(columns in proptest::collection::vec(0_u64..1 << 50, 16)) {
        let texts: Vec<String> = columns.iter().map(u64::to_string).collect();
        let text = format!("head\nhead\n eth0: {}\n", texts.join(" "));
        let network = parse::network(&text);
        prop_assert_eq!(network[0].received_bytes, columns[0]);
        prop_assert_eq!(network[0].sent_dropped, columns[11]);
    }
}

/// A sensor that hangs once made an exporter start one more thread at each question
/// (prometheus/node_exporter#578).
#[tokio::test]
async fn a_sensor_that_hangs_is_asked_once_and_holds_up_its_own_part_only() {
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    let (hanging, other) = (
        reading::Part::<u32>::default(),
        reading::Part::<u32>::default(),
    );
    let asked = hanging.read(move || {
        released.recv().map_err(std::io::Error::other)?;
        Ok(1)
    });
    tokio::select! {
        biased;
        _ = asked => unreachable!("it hangs"),
        () = tokio::task::yield_now() => {} // given up
    }
    while !hanging.thread.hangs() {
        tokio::task::yield_now().await;
    }
    let again = hanging.read(|| unreachable!("it is not asked again")).await;
    assert_eq!(again.unwrap_err(), "the node does not answer");
    assert_eq!(*other.read(|| Ok(2)).await.unwrap(), 2);
    release.send(()).unwrap();
    hanging.thread.until_free().await;
    let last = *hanging.read(|| Ok(3)).await.unwrap();
    assert!([1, 3].contains(&last), "{last}: read at last, or again");
}
