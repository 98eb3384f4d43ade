//! How often the rule errs: the table of docs/validation.md.
//!
//! Pairs of scores of which the truth is known are drawn and judged many times. The tests have few runs;
//! `SAWLOG_RUNS=20000 cargo test --lib validation::simulation -- --nocapture` prints the table.

use super::agreement::{Agreement, Flagged, Measures, Sample, judge};
use super::tests::Random;
use super::window::CAPACITY;

/// Two scorers that see the same thing, each with an error of its own.
struct Scorers {
    name: &'static str,
    /// The correlation of what they see.
    correlation: f32,
    /// Scores are rounded to so much: equal ones become common.
    step: f32,
    /// What the local score is shifted by: its threshold fits no more.
    offset: f32,
    /// What may never be said of them, beyond the stated rate.
    never: Agreement,
}

const fn scorers(name: &'static str, correlation: f32, never: Agreement) -> Scorers {
    Scorers { name, correlation, step: 0.0, offset: 0.0, never }
}

const SCORERS: [Scorers; 8] = [
    scorers("alike (tops 12 %, ranks 0.99)", 0.99, Agreement::Disagree),
    scorers("the least alike of good forests (28 %, 0.94)", 0.94, Agreement::Disagree),
    Scorers { step: 0.5, ..scorers("the same, many equal scores", 0.94, Agreement::Disagree) },
    scorers("on the mark of tops (45 %, 0.83)", 0.8433, Agreement::Disagree),
    scorers("on the mark of ranks (75 %, 0.50)", 0.5176, Agreement::Agree),
    Scorers { step: 0.5, ..scorers("strangers, many equal scores", 0.0, Agreement::Agree) },
    scorers("strangers (95 %, 0.00)", 0.0, Agreement::Agree),
    Scorers { offset: 3.0, ..scorers("alike, one threshold far off", 0.99, Agreement::Agree) },
];

impl Scorers {
    fn draw(&self, random: &mut Random) -> Sample {
        let (shared, own) = (self.correlation.sqrt(), (1.0 - self.correlation).sqrt());
        let seen = random.normal();
        let mut score = || {
            let score = shared * seen + own * random.normal();
            if self.step > 0.0 { (score / self.step).round() * self.step } else { score }
        };
        let (local, endpoint) = (score() + self.offset, score());
        // One in two hundred of a standard normal distribution lies above.
        let threshold = 2.576;
        let flagged = Flagged { local: local > threshold, endpoint: endpoint > threshold };
        Sample { local, endpoint, flagged: Some(flagged) }
    }
}

fn runs() -> usize {
    let asked = std::env::var("SAWLOG_RUNS").ok();
    asked.map_or(40, |runs| runs.parse().expect("SAWLOG_RUNS is a number"))
}

#[test]
fn a_window_is_judged_wrongly_no_more_often_than_stated() {
    let mut random = Random::new(11);
    let runs = runs();
    println!(
        "| scorers | records | too few | agree | drifting | disagree |\n|---|---|---|---|---|---|"
    );
    for scorers in &SCORERS {
        for records in [10, 200, 500, 1000, CAPACITY] {
            let mut counts = [0; 4];
            for _run in 0..runs {
                let samples: Vec<Sample> =
                    (0..records).map(|_| scorers.draw(&mut random)).collect();
                counts[judge(&Measures::of(&samples)).agreement as usize] += 1;
            }
            let percent = counts.map(|count| format!("{:.2}", 100.0 * count as f64 / runs as f64));
            println!("| {} | {records} | {} |", scorers.name, percent.join(" | "));
            if records == 10 {
                assert_eq!(counts, [runs, 0, 0, 0], "nothing is said of ten records");
            }
            // One in a thousand, and what chance makes of that in so many runs.
            let expected = runs as f64 * super::agreement::ERROR_RATE;
            let allowed = expected + 4.0 * expected.sqrt() + 1.0;
            let wrong = counts[scorers.never as usize];
            assert!(wrong as f64 <= allowed, "{} {records}: {wrong} of {runs}", scorers.name);
        }
    }
}

#[test]
fn what_is_clear_is_said_of_a_full_window() {
    let mut random = Random::new(12);
    let mut judged = |scorers: &Scorers| {
        let samples: Vec<Sample> = (0..CAPACITY).map(|_| scorers.draw(&mut random)).collect();
        judge(&Measures::of(&samples))
    };
    for _run in 0..20 {
        for (scorers, expected) in [
            (&SCORERS[0], Agreement::Agree),
            (&SCORERS[6], Agreement::Disagree),
            (&SCORERS[7], Agreement::Disagree),
        ] {
            let judgement = judged(scorers);
            assert_eq!(judgement.agreement, expected, "{}: {}", scorers.name, judgement.reason);
        }
    }
}

/// A window that moves is looked at after every batch, and each look may err.
#[test]
fn a_moving_window_of_agreement_is_not_condemned_by_being_looked_at_often() {
    let mut random = Random::new(13);
    let runs = runs().div_ceil(40);
    println!("| scorers | looks | windows condemned at any look |\n|---|---|---|");
    for scorers in &SCORERS[..4] {
        let mut condemned = 0;
        for _run in 0..runs {
            // Ten full windows, a look every 64 records.
            let mut samples: Vec<Sample> = Vec::new();
            let mut ever = false;
            for _look in 0..10 * CAPACITY / 64 {
                samples.extend((0..64).map(|_| scorers.draw(&mut random)));
                let oldest = samples.len().saturating_sub(CAPACITY);
                samples.drain(..oldest);
                ever |= judge(&Measures::of(&samples)).agreement == Agreement::Disagree;
            }
            condemned += usize::from(ever);
        }
        println!("| {} | {} | {condemned} of {runs} |", scorers.name, 10 * CAPACITY / 64);
        if scorers.correlation >= 0.9 {
            assert_eq!(condemned, 0, "{}", scorers.name);
        }
    }
}
