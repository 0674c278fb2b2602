'use strict';
'require baseclass';
'require agentmon.check as check';
'require agentmon.options as options';

/*
 * The options of /etc/config/agentmon, section by section: title, help, check, default. Names
 * and defaults are those of the file the package installs; a test compares. Collectors and
 * detectors have files of their own.
 */

const { section, flag, value, values, choice, only, also, many } = options;

/* A list that is on has a file or names, not both. */
function either(enabled, path, names) {
	const has = (section_id) => L.toArray(names.formvalue(section_id)).length > 0;

	also(path, (section_id, value) => enabled.formvalue(section_id) != '1' || (value != '') != has(section_id),
		_('either a file, or names below: not both, not neither'));
}

return baseclass.extend({
	main(map) {
		const s = section(map, 'main', 'agentmon', _('Service'));

		flag(s, 'enabled', _('Switched on'), _('Whether the service runs at all.'), '1');
		flag(s, 'nft_table', _('Own firewall table'),
			_('Adds the table inet agentmon: the kernel tracks connections and copies DNS packets to the collector. It decides over no packet.'), '1');
		flag(s, 'log_rejects', _('See rejected packets'), _('Copies of what the firewall rejects, for the collector of stopped packets.'), '1');
		value(s, 'log_rejects_rate', _('Copies a second'), _('At most so many copies of rejected packets in a second.'), '100', check.whole(1, 100000));
		flag(s, 'enforce', _('Stop listed names'),
			_('Holds DNS questions and the first packets of connections, and judges them by the lists that may block. Needs kmod-nft-queue. The network goes on when agentmon stops or hangs.'), '0');
		flag(s, 'enforce_dry_run', _('Dry run'), _('Stops nothing, and tells what would have been stopped.'), '1');
		flag(s, 'enforce_addresses', _('Stop listed addresses'), _('Also the first packets to listed addresses, not only questions for listed names.'), '1');
		values(s, 'enforce_interface', _('Hold packets from'), _('Interfaces whose packets are held, such as br-lan. None: all.'), check.iface());

		choice(s, 'enforce_block', _('How to stop'), _('Whether the device gets an answer: no such name, connection refused.'), 'nxdomain',
			[ 'nxdomain', _('with an answer') ], [ 'drop', _('in silence') ]);
		values(s, 'local_network', _('Own networks'), _('Networks of the house besides the private ranges, such as a public prefix.'), 'or(ipaddr, cidr)');

		choice(s, 'log_level', _('Log level'), _('Least severe messages that are written to the system log.'), 'info',
			[ 'off', _('nothing') ], [ 'error', _('errors') ], [ 'warn', _('warnings') ], [ 'info', _('information') ],
			[ 'debug', _('details for finding faults') ], [ 'trace', _('everything') ]);
	},

	hub(map) {
		const s = section(map, 'hub', 'hub', _('Hub'), _('Where events are sent: a Linux machine that runs agentmon serve. Without one the router keeps the newest events.'));

		flag(s, 'enabled', _('Send events'), _('Whether events are sent to a hub.'), '1');
		const join = value(s, 'join', _('Join line'),
			_('The line that agentmon enroll printed on the hub: all that is needed. It is a secret.'), '', check.join());
		join.password = true;
		only(join,
			value(s, 'url', _('Address of the hub'), _('In place of the line, or to override it.'), 'https://192.0.2.10:8743', check.url()),
			value(s, 'name', _('Name of this sensor'), _('As the hub knows it.'), '', check.name()),
			value(s, 'token_file', _('File with the token'), _('Only without a join line.'), '/etc/agentmon/token', check.path()),
			value(s, 'ca', _('File with the hub\'s certificate'), _('Only without a join line.'), '/etc/agentmon/hub-ca.pem', check.path()),
			value(s, 'health_interval', _('Health report'), _('How often an idle router says that it is well.'), '30s', check.duration('1s', '1h')),
			value(s, 'batch_events', _('Events in one message'), _('Most events sent at once.'), '5000', check.whole(1, 50000)),
			value(s, 'batch_size', _('Size of one message'), _('Most bytes sent at once, before compression.'), '512K', check.size('64K', '8M')));
	},

	ring(map) {
		const s = section(map, 'ring', 'ring', _('Ring of events'), _('Where events wait for the hub. In memory by default: nothing is written to flash.'));

		value(s, 'path', _('File'), _('On /tmp it is in memory.'), '/tmp/agentmon/ring.db', check.path());
		value(s, 'size', _('Size'), _('Most bytes it takes; 16M hold about 125000 connections.'), '16M', check.size('2M', '4G'));
		value(s, 'snapshot_interval', _('Copy to flash every'),
			_('So that a power cut loses less: 1h, 24h; 0 means never. Each copy wears the flash.'), '0', check.durationOrNever('1m', '31d'));
		value(s, 'snapshot_path', _('Place of the copy'), _('A USB disk is kinder than the router\'s own flash.'),
			'/etc/agentmon/ring.snapshot', check.path());
	},

	devices(map) {
		const s = section(map, 'devices', 'devices', _('Names of devices'), _('They come before the names that devices give themselves.'));

		values(s, 'name', _('Names'), _('A MAC or an address, =, the name: 192.168.1.9=camera.'), check.named());
		value(s, 'known_path', _('Devices seen so far'), _('On flash, as /etc/agentmon/known-devices, they outlive a reboot.'), '', check.path());
	},

	lists(map) {
		const s = many(map, 'list', _('Lists of names'),
			_('Hosts files, plain names, adblock, dnsmasq, unbound or RPZ syntax. A new list needs a name of letters, digits and underscores.'));
		const enabled = flag(s, 'enabled', _('Switched on'), '', '1');
		const path = value(s, 'path', _('File'), '', '/etc/agentmon/lists/example.txt', check.path());
		value(s, 'score', _('How grave'), _('0 to 1: from 0.2 low, 0.4 medium, 0.6 high, above 0.8 critical.'), '0.8', check.share());
		flag(s, 'block', _('May be enforced'), _('Whether what is listed here is stopped where that is switched on.'), '0');
		choice(s, 'format', _('Form of its lines'), _('Where it is named, lines of others are refused.'), 'auto',
			[ 'auto', _('each says itself what it is') ],
			...[ 'hosts', 'domains', 'wildcard', 'adblock', 'dnsmasq', 'unbound', 'rpz', 'addresses', 'urls' ].map((word) => [ word, word ]));
		value(s, 'sources_min', _('Sources at least'), _('Of lists that say how many sources name an address.'), '3', check.whole(0, 100000000));
		value(s, 'licence', _('Licence'), _('Told with the list.'), '');
		choice(s, 'kind', _('What it is for'), '', 'bad',
			[ 'bad', _('tell what stands on it') ], [ 'allow', _('never tell what stands on it') ], [ 'watch', _('tell once of each device') ]);
		const names = values(s, 'domain', _('Names'), _('Names on the list, in place of a file.'), check.domain());
		either(enabled, path, names);
	}
});
