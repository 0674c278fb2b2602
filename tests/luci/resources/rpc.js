'use strict';
'require baseclass';

/* Calls over JSON-RPC at the path uhttpd serves ubus on. Those of one frame go in one request. */

let next = 1;
let queue = [];

function flush() {
	const batch = queue;
	queue = [];

	fetch(L.env.ubuspath, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(batch.map((one) => one.message)) })
		.then((reply) => reply.json())
		.then((replies) => batch.forEach((one, i) => one.done(replies[i])))
		.catch((error) => batch.forEach((one) => one.fail(error)));
}

function send(message) {
	return new Promise((done, fail) => {
		if (queue.push({ message, done, fail }) == 1)
			requestAnimationFrame(flush);
	});
}

/* As LuCI does it: the status alone where there is no data, the expected key or its default. */
function value(spec, reply) {
	const where = 'RPC call to ' + spec.object + '/' + spec.method;

	if (reply == null || reply.jsonrpc != '2.0')
		throw new Error(where + ' returned invalid message frame');
	if (reply.error && reply.error.code)
		throw new Error(where + ' failed with error ' + reply.error.code + ': ' + reply.error.message);
	if (spec.reject && Array.isArray(reply.result) && reply.result[0] !== 0)
		throw new Error(where + ' failed with ubus code ' + reply.result[0]);

	let result = Array.isArray(reply.result) ? reply.result[reply.result.length > 1 ? 1 : 0] : null;

	for (const key in spec.expect || {}) {
		const standard = spec.expect[key];
		if (result != null && key != '')
			result = result[key];
		if (result == null || Object.prototype.toString.call(result) != Object.prototype.toString.call(standard))
			result = standard;
	}
	return result;
}

return baseclass.extend({
	declare(spec) {
		return (...args) => {
			const params = {};
			(spec.params || []).forEach((name, i) => { params[name] = args[i]; });
			const message = { jsonrpc: '2.0', id: next++, method: 'call', params: [ L.env.sessionid, spec.object, spec.method, params ] };
			return send(message).then((reply) => value(spec, reply));
		};
	}
});
