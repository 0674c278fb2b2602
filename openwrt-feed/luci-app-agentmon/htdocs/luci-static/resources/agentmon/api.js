'use strict';
'require baseclass';
'require rpc';

/*
 * The daemon's ubus object, and every way in which a call can end.
 *
 * Each call resolves (never rejects) to { state, data }. `state` is
 *   ok       `data` is the reply, an object
 *   missing  no object `agentmon` on the bus: the daemon does not run
 *   denied   this login may not call it
 *   silent   the daemon is there but did not answer in time
 *   foreign  the daemon does not know the method or its arguments: another version
 *   offline  the router itself did not answer
 *   failed   anything else; `data` says what
 *
 * A declaration without `expect` yields the reply, or the ubus status as a number. What
 * the web server itself refuses comes as an error whose text ends in a JSON-RPC code.
 */

const UBUS = { 2: 'foreign', 3: 'foreign', 4: 'missing', 6: 'denied', 7: 'silent' };
const JSONRPC = { '-32000': 'missing', '-32001': 'denied', '-32002': 'denied', '-32003': 'silent', '-32601': 'foreign' };
const CODE = /failed with error (-?[0-9]+)/;

const call = {
	/* See router/src/ubus/object.rs for the shapes. */
	status: rpc.declare({ object: 'agentmon', method: 'status' }),
	alerts: rpc.declare({ object: 'agentmon', method: 'alerts', params: [ 'limit' ] }),
	devices: rpc.declare({ object: 'agentmon', method: 'devices' }),
	ack: rpc.declare({ object: 'agentmon', method: 'ack', params: [ 'id', 'note' ] })
};

/* UCI's words for a switch that is off. */
const OFF = [ '0', 'off', 'false', 'no', 'disabled' ];

/* Asked past LuCI's cache of settings: it must be the value of now. */
const setting = rpc.declare({ object: 'uci', method: 'get', params: [ 'config', 'section', 'option' ], expect: { value: '' } });

function sort(reply) {
	if (typeof reply == 'number')
		return (reply === 0) ? { state: 'ok', data: {} } : { state: UBUS[reply] || 'failed', data: String(reply) };

	if (reply == null || typeof reply != 'object' || Array.isArray(reply))
		return { state: 'failed', data: '' };

	return { state: 'ok', data: reply };
}

function sortError(error) {
	const text = (error && error.message) ? String(error.message) : '';
	const code = CODE.exec(text);

	if (code == null)
		return { state: 'offline', data: text };

	return { state: JSONRPC[code[1]] || 'failed', data: text };
}

function ask(method, ...args) {
	return call[method](...args).then(sort, sortError);
}

return baseclass.extend({
	/* Most alerts the daemon gives at once, and longest note it keeps, in bytes. */
	ALERTS_MAX: 200,
	NOTE_MAX: 200,

	status() {
		return ask('status');
	},

	alerts(limit) {
		return ask('alerts', limit || this.ALERTS_MAX);
	},

	devices() {
		return ask('devices');
	},

	ack(id, note) {
		return ask('ack', id, note);
	},

	/* Whether the settings say that the service is off. Without the right to read them: no. */
	switchedOff() {
		return setting('agentmon', 'main', 'enabled').then((value) => OFF.includes(value.toLowerCase())).catch(() => false);
	},

	/* The list under a key of a reply: bounded, and only of objects. */
	list(data, key, max) {
		const value = (data != null && typeof data == 'object') ? data[key] : null;

		if (!Array.isArray(value))
			return [];

		return value.slice(0, max || 1000).filter((one) => one != null && typeof one == 'object');
	},

	/* The table under a key of a reply. */
	table(data, key) {
		const value = (data != null && typeof data == 'object') ? data[key] : null;
		return (value != null && typeof value == 'object' && !Array.isArray(value)) ? value : {};
	}
});
