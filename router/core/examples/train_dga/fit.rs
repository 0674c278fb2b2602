//! Logistic regression by stochastic gradient descent with AdaGrad (Duchi et al. 2011).

use agentmon_core::tier0::dga::model::{WEIGHTS, features, is_judged};

use crate::made::Random;
use crate::names::Named;

const ROUNDS: usize = 2;
const RATE: f32 = 0.05;

pub(crate) struct Sample {
    pub(crate) features: Vec<u32>,
    pub(crate) generated: bool,
    pub(crate) weight: f32,
}

impl Sample {
    pub(crate) fn new(name: &Named, generated: bool, weight: f32) -> Self {
        Self { features: indices(name), generated, weight }
    }
}

fn indices(name: &Named) -> Vec<u32> {
    let mut indices = Vec::new();
    features(name.label.as_bytes(), name.front, |index| indices.push(index as u32));
    indices
}

/// Weights, the bias last.
pub(crate) struct Model(Vec<f32>);

impl Model {
    pub(crate) fn fit(samples: &[Sample]) -> Self {
        let mut model = Self(vec![0f32; WEIGHTS + 1]);
        let mut squares = vec![1e-6f32; WEIGHTS + 1];
        let mut order: Vec<usize> = (0..samples.len()).collect();
        let mut random = Random(12_345);
        for round in 0..ROUNDS {
            let rate = RATE * (1.0 - 0.8 * round as f32 / ROUNDS as f32);
            for i in (1..order.len()).rev() {
                order.swap(i, random.below(i + 1));
            }
            for sample in order.iter().map(|i| &samples[*i]) {
                let expected = f32::from(u8::from(sample.generated));
                let odds = model.odds(&sample.features);
                let slope = (1.0 / (1.0 + (-odds).exp()) - expected) * sample.weight;
                let bias = WEIGHTS as u32;
                for i in sample.features.iter().chain(std::iter::once(&bias)) {
                    let i = *i as usize;
                    squares[i] += slope * slope;
                    model.0[i] -= rate * slope / squares[i].sqrt();
                }
            }
        }
        model
    }

    pub(crate) fn odds(&self, features: &[u32]) -> f32 {
        features.iter().map(|i| self.0[*i as usize]).sum::<f32>() + self.bias()
    }

    /// Least of all where nothing is judged.
    pub(crate) fn odds_of(&self, name: &Named) -> f32 {
        if is_judged(&name.label) { self.odds(&indices(name)) } else { f32::MIN }
    }

    pub(crate) fn bias(&self) -> f32 {
        self.0[WEIGHTS]
    }

    /// The weight that one step of the byte stands for.
    pub(crate) fn unit(&self) -> f32 {
        self.0[..WEIGHTS].iter().fold(0f32, |most, w| most.max(w.abs())) / 127.0
    }

    /// The weights as bytes.
    pub(crate) fn steps(&self) -> Vec<u8> {
        let unit = self.unit();
        let steps = self.0[..WEIGHTS].iter().map(|w| (w / unit).round() as i8);
        steps.map(i8::cast_unsigned).collect()
    }

    /// As it will be after a round trip through bytes.
    pub(crate) fn quantised(mut self) -> Self {
        let unit = self.unit();
        for weight in &mut self.0[..WEIGHTS] {
            *weight = (*weight / unit).round() * unit;
        }
        self
    }
}
