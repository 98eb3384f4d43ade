//! The page of `sawlog evaluate --report` in a real browser: headless Chromium parses and draws it.
//! What a record holds must stay text, whatever it looks like, and nothing may be asked of a network.
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::folder::Folder;

/// As `tests/servers/setup` finds or installs it.
const BROWSERS: [&str; 4] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// A value that is markup, a script and a reference to a network, if it is not escaped.
const HOSTILE: &str = r#"</td><script>document.title='run'</script><img src=http://x.test/>"#;

fn browser() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    let mut all =
        BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.find(|path| path.is_file()).expect("Chromium is not installed: run tests/servers/setup")
}

/// Runs the browser on the page and returns what it prints.
fn browse(folder: &Folder, arguments: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", folder.path("profile").display());
    let page = format!("file://{}", folder.path("page.html").display());
    let run = Command::new(browser())
        // Inside a container there are no namespaces to build its sandbox of; the page is our own.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &profile])
        .args(arguments)
        .arg(page)
        .current_dir(folder.root())
        .output()
        .expect("the browser starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("text")
}

/// Series of two hosts with an outage that is labelled; the log of one host is hostile.
fn write_inputs(folder: &Folder) {
    let spec = r#"format = "json"
[[feature]]
name = "<b>ms</b>"
field = "/ms"
[[feature]]
name = "host"
field = "/host"
encode = "one_hot"
"#;
    folder.write("spec.toml", spec);
    let log = |is_later: bool| {
        let mut lines = String::new();
        for i in 0..3000_u32 {
            let is_outage = is_later && (2000..2040).contains(&i);
            let ms = 20 + i * 7919 % 101 + if is_outage { 5000 } else { 0 };
            let host = if is_outage { HOSTILE } else { ["a", "b"][i as usize % 2] };
            let record = serde_json::json!({"ms": ms, "host": host, "outage": is_outage});
            writeln!(lines, "{record}").expect("a string takes all");
        }
        lines
    };
    folder.write("log", log(false));
    folder.write("later", log(true));
}

#[test]
fn a_browser_draws_the_report_and_runs_nothing_of_the_records() {
    let folder = Folder::new();
    write_inputs(&folder);
    folder.ok("train --spec spec.toml --input log --output model");
    let evaluate = "evaluate --model model --input later --label /outage --top 12";
    folder.ok(&format!("{evaluate} --report page.html"));

    // The page as the browser understood it, every element closed.
    let page = browse(&folder, &["--dump-dom"]);
    let count = |what: &str| page.matches(what).count();
    assert!(page.contains("<title>Scores by model</title>"), "no script has changed it");
    assert_eq!((count("<script"), count("<img")), (0, 0), "what records hold is text");
    assert!(page.contains("&lt;script&gt;") && page.contains("&lt;b&gt;ms&lt;/b&gt;"), "and shown");
    for heading in [
        "Score, record by record",
        "Distribution of the scores",
        "Thresholds",
        "Against the labels",
        "The 12 most unusual records",
        "The features, beside training",
    ] {
        assert_eq!(count(&format!("<h2>{heading}</h2>")), 1, "{heading}");
    }
    assert_eq!(count("<span class=\"tag hit\">labelled anomaly"), 12);
    assert_eq!(count("class=\"best\""), 2, "on the curve and over the thresholds");
    assert!(count("<svg") >= 4 + 12, "{} pictures", count("<svg"));
    // A direction is said of what a score comes from, not of a few per cent of it.
    let (mut with, mut without) = (0, 0);
    for row in page.split("<td class=\"part\">").skip(1) {
        let (part, value) = row.split_once("</td>").expect("a cell");
        let share: f64 = part
            .rsplit_once("</span>")
            .and_then(|(_, share)| share.trim().strip_suffix(" %"))
            .and_then(|share| share.parse().ok())
            .expect("a share");
        let value = value.split("</td>").next().unwrap_or_default();
        let has_way = value.contains("class=\"way\"");
        assert!(!has_way || share >= 5.0, "{share} %: {value}");
        with += usize::from(has_way);
        without += usize::from(!has_way);
    }
    assert!(with > 0 && without > 0, "{with} with a direction, {without} without");
    assert!(!page.contains("NaN") && !page.contains("inf,"), "every place is a number");

    // Drawn: a picture of some size that is not blank; one with nothing on it takes 5 kB.
    browse(&folder, &["--window-size=1200,2600", "--screenshot=page.png"]);
    let picture = folder.bytes("page.png");
    assert_eq!(&picture[..4], b"\x89PNG");
    let size = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four"));
    assert_eq!((size(16), size(20)), (1200, 2600));
    assert!(picture.len() > 60_000, "{} bytes", picture.len());
}
