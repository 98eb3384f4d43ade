//! An endpoint's answer to scores: one for each row that was sent, in their order.
//!
//! It is read by what it looks like, not by what it says it is: endpoints answer JSON to whom asked
//! for CSV, one object a line, commas at the ends of lines. What is not borne with is another number
//! of scores than of rows: nothing would say which score is whose.

use serde::Deserialize;

/// Why an answer can't be used. Says nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Another number of scores than of rows.
    #[error("it has {got} scores for {expected} rows")]
    Count {
        /// Rows that were sent.
        expected: usize,
        /// Scores that came; one more than expected stands for any number more.
        got: usize,
    },
    /// Neither JSON nor lines of JSON with scores, nor numbers.
    #[error("it can't be read at line {line}: neither json with scores nor csv")]
    Unreadable {
        /// Where it begins to be so, from 1.
        line: usize,
    },
    /// A score that is no number one could compare.
    #[error("score {index} is not finite")]
    NotFinite {
        /// Which, from 0.
        index: usize,
    },
}

#[derive(Deserialize)]
struct Scores {
    scores: Vec<Score>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Score {
    Object { score: f64 },
    Number(f64),
}

impl Score {
    fn number(self) -> f64 {
        match self {
            Self::Object { score } | Self::Number(score) => score,
        }
    }
}

/// Reads the scores of so many rows.
///
/// # Errors
/// [`AnswerFault`] if it has not as many finite scores.
pub(super) fn scores(answer: &[u8], expected: usize) -> Result<Vec<f32>, AnswerFault> {
    let scores = match serde_json::from_slice::<Scores>(answer) {
        Ok(Scores { scores }) => scores.into_iter().map(Score::number).collect(),
        Err(_) => in_lines(answer, expected)?,
    };
    if scores.len() != expected {
        return Err(AnswerFault::Count { expected, got: scores.len().min(expected + 1) });
    }
    let finite = |(index, score): (usize, f64)| {
        #[expect(clippy::cast_possible_truncation, reason = "what is too large is refused")]
        let score = score as f32;
        if score.is_finite() { Ok(score) } else { Err(AnswerFault::NotFinite { index }) }
    };
    scores.into_iter().enumerate().map(finite).collect()
}

/// One JSON object or any number of numbers a line; commas anywhere between.
fn in_lines(answer: &[u8], expected: usize) -> Result<Vec<f64>, AnswerFault> {
    let mut scores = Vec::with_capacity(expected);
    for (line, bytes) in answer.split(|&byte| byte == b'\n').enumerate() {
        let unreadable = || AnswerFault::Unreadable { line: line + 1 };
        let text = std::str::from_utf8(bytes).map_err(|_| unreadable())?;
        let text = text.trim().trim_end_matches(',').trim_end();
        if text.starts_with('{') {
            let score: Score = serde_json::from_str(text).map_err(|_| unreadable())?;
            scores.push(score.number());
        } else if !text.is_empty() {
            for number in text.split(',') {
                scores.push(number.trim().parse().map_err(|_| unreadable())?);
            }
        }
        // More than enough to say that there are too many.
        if scores.len() > expected {
            break;
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_answer_is_as_many_finite_scores_or_refused(
            answer in r#"([0-9NaN.eE+-]{0,6}|[{}\[\]":,\n]|"scores"|"score"|\{"score":[0-9]\}){0,40}"#,
            expected in 0..6_usize,
        ) {
            if let Ok(scores) = scores(answer.as_bytes(), expected) {
                assert_eq!(scores.len(), expected, "{answer}");
                assert!(scores.iter().all(|score| score.is_finite()), "{answer}: {scores:?}");
            }
        }
    }

    #[test]
    fn every_way_to_write_scores_is_read() {
        for answer in [
            r#"{"scores":[{"score":0.02},{"score":0.25}]}"#,
            r#" {"scores": [0.02, {"score": 0.25, "more": 1}], "id": "x"} "#,
            "{\"score\":0.02}\n{\"score\":0.25}",
            "{\"score\":0.02},\r\n{\"score\":0.25},\r\n",
            "0.02\n0.25\n",
            "0.02,0.25",
            "0.02,\n0.25,\n\n",
            "2e-2 , 0.25",
        ] {
            assert_eq!(scores(answer.as_bytes(), 2), Ok(vec![0.02, 0.25]), "{answer}");
        }
        assert_eq!(scores(b"", 0), Ok(vec![]));
        assert_eq!(scores(br#"{"score":0.5}"#, 1), Ok(vec![0.5]));
    }

    #[test]
    fn another_number_of_scores_is_refused() {
        for (answer, got) in [
            ("0.02", 1),
            ("", 0),
            ("0.1\n0.2\n0.3\n", 3),
            ("0.1,0.2,0.3,0.4,0.5", 3),
            (r#"{"scores":[{"score":0.02}]}"#, 1),
            (r#"{"scores":[1,2,3,4]}"#, 3),
            (r#"{"scores":[]}"#, 0),
        ] {
            let fault = AnswerFault::Count { expected: 2, got };
            assert_eq!(scores(answer.as_bytes(), 2), Err(fault), "{answer}");
        }
    }

    #[test]
    fn what_is_no_score_is_refused_with_its_place_and_not_quoted() {
        for (answer, line) in [
            ("<html>busy</html>", 1),
            ("0.1\nsecret", 2),
            ("0.1 0.2", 1),
            (r#"{"scores":[{"score":NaN},{"score":1}]}"#, 1),
            (r#"{"scores":[null, 1]}"#, 1),
            (r#"{"predictions":[0.1, 0.2]}"#, 1),
            ("{\"score\":0.1}\n{\"score\":", 2),
            (r#"{"scores":[{"score":0.1},{"sc"#, 1),
        ] {
            let fault = scores(answer.as_bytes(), 2).expect_err(answer);
            assert_eq!(fault, AnswerFault::Unreadable { line }, "{answer}");
        }
        assert_eq!(scores(b"\xff\n1", 2), Err(AnswerFault::Unreadable { line: 1 }));
        for (answer, index) in [("NaN\n0.1", 0), ("0.1\ninf", 1), ("0.1\n1e39", 1)] {
            assert_eq!(scores(answer.as_bytes(), 2), Err(AnswerFault::NotFinite { index }));
        }
    }
}
