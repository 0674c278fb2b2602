//! A collector that runs in the lab's router, and what it has delivered so far.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use agentmon_core::Event;
use agentmon_core::event::{Body, Device, Dns, Firewall, Flow, FlowPhase, Gap};
use agentmon_core::finding::Finding;
use agentmon_core::time::SystemClock;
use agentmon_router::collect::{Collector, Context, Delivery, Outbox, State, Stop};
use agentmon_router::counters::Counters;

use crate::lab::{Host, Lab, eventually};

/// A running collector.
pub(crate) struct Watch {
    pub(crate) state: State,
    pub(crate) counters: Counters,
    stop: Stop,
    events: Arc<Mutex<Vec<Event>>>,
    collector: Option<JoinHandle<anyhow::Result<()>>>,
    receiver: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it in the router and waits until its state line says something.
    pub(crate) fn start(lab: &Lab, mut collector: impl Collector + 'static) -> Self {
        let (outbox, deliveries) = Outbox::channel();
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: Arc::new(SystemClock),
            counters: Counters::default(),
            state: State::default(),
        };
        let (state, counters) = (context.state.clone(), context.counters.clone());
        let stop = context.stop.clone();
        let collector = lab.on(Host::Router, move || collector.run(&context));
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let receiver = std::thread::spawn({
            let events = Arc::clone(&events);
            move || receive(&deliveries, &events)
        });
        let watch = Self {
            state,
            counters,
            stop,
            events,
            collector: Some(collector),
            receiver: Some(receiver),
        };
        eventually("the collector runs", || {
            let line = watch.state.get();
            if line.is_empty() { Err("no state line".to_owned()) } else { Ok(()) }
        });
        watch
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("no test thread panicked with it")
    }

    fn all<T>(&self, pick: impl Fn(&Body) -> Option<T>) -> Vec<T> {
        self.events().iter().filter_map(|event| pick(&event.body)).collect()
    }

    /// Flow records of that phase, in their order.
    pub(crate) fn flows(&self, phase: FlowPhase) -> Vec<Flow> {
        self.all(|body| match body {
            Body::Flow(flow) if flow.phase == phase => Some(flow.clone()),
            _ => None,
        })
    }
    pub(crate) fn dns(&self) -> Vec<Dns> {
        self.all(|body| if let Body::Dns(dns) = body { Some(dns.clone()) } else { None })
    }
    pub(crate) fn firewall(&self) -> Vec<Firewall> {
        self.all(|body| if let Body::Firewall(f) = body { Some(f.clone()) } else { None })
    }
    pub(crate) fn devices(&self) -> Vec<Device> {
        self.all(|body| if let Body::Device(d) = body { Some(d.clone()) } else { None })
    }
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.all(|body| if let Body::Finding(f) = body { Some(f.clone()) } else { None })
    }
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.all(|body| if let Body::Gap(gap) = body { Some(gap.clone()) } else { None })
    }
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counters.snapshot().get(name).copied().unwrap_or(0)
    }
}

fn receive(deliveries: &Receiver<Delivery>, events: &Mutex<Vec<Event>>) {
    for delivery in deliveries {
        events.lock().expect("no test thread panicked with it").extend(delivery.events);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.stop();
        let collector = self.collector.take().map(JoinHandle::join);
        drop(self.receiver.take().map(JoinHandle::join));
        // A test that fails already says why.
        if !std::thread::panicking() {
            match collector {
                Some(Ok(Ok(()))) => {}
                other => panic!("the collector failed: {other:?}"),
            }
        }
    }
}
