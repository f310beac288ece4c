// Rates from counters, without a browser.
import assert from 'node:assert/strict';
import test from 'node:test';

import { KEPT, rateMeter, ratesBetween, scaleFor } from '../../web/console/rates.js';

const START = Date.UTC(2026, 10, 29, 19);
/** What `GET /admin/live` says. */
const live = (seconds, { accepted = 0, written = 0, refused = {}, instance = 'one' } = {}) => ({
  server_time: new Date(START + seconds * 1000).toISOString(),
  instance_started_at: instance,
  accepted,
  written,
  refused,
  in_flight: 0,
  oldest_in_flight_seconds: 0,
  queue_messages: 0,
  dead_letters: 0,
  listeners: 0,
});

test('a rate is what a counter has grown by, in a second of the server’s clock', () => {
  const rates = ratesBetween(live(0, { accepted: 10, written: 5, refused: { sold_out: 3 } }), live(2, { accepted: 30, written: 15, refused: { sold_out: 103, ended: 2 } }));
  assert.equal(rates.accepted, 10);
  assert.equal(rates.written, 5);
  assert.deepEqual(rates.reasons, { sold_out: 50, ended: 1 });
  assert.equal(rates.refused, 51);
});

test('a counter that fell is another process, and nothing is known', () => {
  assert.equal(ratesBetween(live(0, { accepted: 100 }), live(1, { accepted: 3 })), null);
});

test('two readings that are far apart say nothing about a second', () => {
  assert.equal(ratesBetween(live(0), live(60, { accepted: 600 })), null);
  assert.equal(ratesBetween(live(1), live(1)), null);
});

test('readings of two instances are not mixed', () => {
  const meter = rateMeter();
  meter.add(live(0, { accepted: 1000, instance: 'one' }));
  meter.add(live(1, { accepted: 5, instance: 'two' }));
  assert.equal(meter.latest(), null);
  meter.add(live(2, { accepted: 1020, instance: 'one' }));
  assert.equal(meter.latest().accepted, 10);
});

test('two minutes are kept, and a second without an answer is a gap', () => {
  const meter = rateMeter();
  for (let second = 0; second < KEPT + 50; second += 1) meter.add(live(second, { accepted: second }));
  meter.miss();
  assert.equal(meter.seconds().length, KEPT);
  assert.equal(meter.latest(), null);
});

test('a scale holds the greatest number, and ends at a round one', () => {
  assert.equal(scaleFor(0), 10);
  assert.equal(scaleFor(10), 10);
  assert.equal(scaleFor(235), 300);
  assert.equal(scaleFor(1001), 2000);
  for (let value = 1; value < 1e6; value = Math.ceil(value * 1.3)) assert.ok(scaleFor(value) >= value && scaleFor(value) <= Math.max(10, value * 2), `${value}`);
});
