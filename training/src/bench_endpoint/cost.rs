//! What a million scored records cost, by a model small enough to be checked by hand.
//!
//! The function is there either way, and so are its requests; what differs is how long it runs for the
//! scores, and the endpoint's instances, which are paid for whether they are asked or not.

use std::fmt;

use serde::Serialize;

const MILLION: f64 = 1e6;
const SECS_PER_HOUR: f64 = 3600.0;
const MB_PER_GB: f64 = 1024.0;

/// Prices in dollars. The defaults are about those of us-east-1; look yours up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Prices {
    /// A GB-second of Lambda, in dollars
    #[arg(long, default_value_t = 0.000_016_666_7, value_parser = price, value_name = "DOLLARS")]
    lambda_gb_second: f64,
    /// A request to Lambda, in dollars
    #[arg(long, default_value_t = 0.000_000_2, value_parser = price, value_name = "DOLLARS")]
    lambda_request: f64,
    /// The function's memory, in MB
    #[arg(long, default_value_t = 1769, value_name = "MB")]
    lambda_memory_mb: u16,
    /// An hour of one of the endpoint's instances, in dollars
    #[arg(long, default_value_t = 0.115, value_parser = price, value_name = "DOLLARS")]
    instance_hour: f64,
    /// The endpoint's instances
    #[arg(long, default_value_t = 1, value_name = "N")]
    instances: u16,
    /// Records a second, over day and night: what an endpoint that never sleeps is shared by
    #[arg(long, default_value_t = 100.0, value_parser = rate, value_name = "N")]
    records_per_sec: f64,
}

fn price(text: &str) -> Result<f64, &'static str> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or("not a price")
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or("not a number above 0")
}

/// Dollars a million records.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Costs {
    pub(super) in_process: f64,
    pub(super) endpoint: f64,
}

impl Prices {
    /// Of batches of a size that take so many seconds in process, and so many through the endpoint.
    #[expect(clippy::cast_precision_loss, reason = "a number of records")]
    pub(super) fn of(&self, batch: usize, in_process_secs: f64, endpoint_secs: f64) -> Costs {
        let invocations = MILLION / batch as f64;
        let gb = f64::from(self.lambda_memory_mb) / MB_PER_GB;
        let function =
            |secs: f64| invocations * (self.lambda_request + gb * secs * self.lambda_gb_second);
        let hours = MILLION / self.records_per_sec / SECS_PER_HOUR;
        let instances = f64::from(self.instances) * self.instance_hour * hours;
        Costs {
            in_process: function(in_process_secs),
            endpoint: function(endpoint_secs) + instances,
        }
    }
}

impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dollars a million records: a function of {} MB for the time of the scores, at {} a GB-second \
             and {} a request; by endpoint with {} instance(s) at {} an hour, shared by {} records a second",
            self.lambda_memory_mb,
            self.lambda_gb_second,
            self.lambda_request,
            self.instances,
            self.instance_hour,
            self.records_per_sec
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_worked_out_by_hand() {
        let prices = Prices {
            lambda_gb_second: 2e-5,
            lambda_request: 1e-6,
            lambda_memory_mb: 2048,
            instance_hour: 0.36,
            instances: 2,
            records_per_sec: 50.0,
        };
        let costs = prices.of(1000, 0.5, 1.5);
        // 1,000 invocations of 2 GB for half a second, and 20,000 s of two instances at 1e-4 a second.
        assert!((costs.in_process - 1000.0 * (1e-6 + 2.0 * 0.5 * 2e-5)).abs() < 1e-12, "{costs:?}");
        let endpoint = 1000.0 * (1e-6 + 2.0 * 1.5 * 2e-5) + 20_000.0 * 2.0 * 1e-4;
        assert!((costs.endpoint - endpoint).abs() < 1e-9, "{costs:?}");
    }
}
