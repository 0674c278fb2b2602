'use strict';
'require baseclass';
'require agentmon.check as check';
'require agentmon.options as options';

/*
 * The collectors of /etc/config/agentmon, section by section: title, help, check, default.
 * Names and defaults are those of the file the package installs; a test compares.
 */

const { section, flag, value, values, only, also, many } = options;

/* One reader holds an NFLOG group: two collectors that are on need two. */
function apart(one, oneSection, other, otherSection) {
	const number = (option, section_id) => option.formvalue(section_id) || option.placeholder;
	const on = (option, section_id) => option.section.formvalue(section_id, 'enabled') != '0';
	const differ = (value, standard, rival, rivalSection) =>
		!on(rival, rivalSection) || (value || standard) != number(rival, rivalSection);

	also(one, (section_id, value) => differ(value, one.placeholder, other, otherSection), _('another group than that of DNS on the wire'));
	also(other, (section_id, value) => differ(value, other.placeholder, one, oneSection), _('another group than that of the stopped packets'));
}

/* Where the web interface of a Pi-hole is, and how to be let in. */
function web(s, url, password, certificate) {
	return [
		value(s, 'url', _('Web interface'), _('https://pi.hole, or with a port.'), url, check.web()),
		value(s, 'address', _('Address'), _('Where the router does not resolve the name.'), '', check.address()),
		value(s, 'password_file', _('Password file'), _('Holds an app password of the Pi-hole.'), password, check.path()),
		value(s, 'certificate', _('Certificate file'), _('A copy of /etc/pihole/tls_ca.crt of the Pi-hole.'), certificate, check.path())
	];
}

return baseclass.extend({
	kernel(map) {
		let s = section(map, 'conntrack', 'collector', _('Collector: connections'), _('From the kernel\'s connection table. Needs kmod-nf-conntrack-netlink.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'dump_interval', _('Full read every'), _('Gives the byte counts of long connections.'), '15s', check.duration('1s', '1h')),
			value(s, 'poll_interval', _('Full read without events every'), _('While the kernel sends no events (hardware offload).'), '5s', check.duration('1s', '1h')),
			value(s, 'flows_max', _('Open connections remembered'), _('About 250 bytes each.'), '32768', check.whole(1, 4194304)),
			flag(s, 'loopback', _('The router\'s talk with itself'), '', '0'),
			value(s, 'buffer', _('Event buffer'), _('Room for events not read yet; memory only while it is behind.'), '8M', check.size('64K', '1G')));

		s = section(map, 'firewall', 'collector', _('Collector: stopped packets'), _('What the firewall rejected. Needs kmod-nfnetlink-log.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		const rejects = value(s, 'group', _('NFLOG group'), _('Number of the group the copies come by.'), '5', check.whole(0, 65535));
		only(rejects);

		s = section(map, 'passive_dns', 'collector', _('Collector: DNS on the wire'), _('Questions and answers that pass the router. Needs kmod-nfnetlink-log.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		const dns = value(s, 'group', _('NFLOG group'), _('Number of the group the copies come by.'), '6', check.whole(0, 65535));
		apart(rejects, 'firewall', dns, 'passive_dns');
		only(dns,
			value(s, 'exchanges_max', _('Questions waiting for an answer'), _('About 250 bytes each.'), '4096', check.whole(16, 1048576)));
	},

	logs(map) {
		let s = section(map, 'dnsmasq_log', 'collector', _('Collector: log of dnsmasq'), _('Only where the questions cannot be seen on the wire. Needs query logging to a file in the DHCP and DNS settings.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(values(s, 'path', _('Log files'), '', check.path()),
			value(s, 'timezone', _('Time zone of the log'), _('local, utc, +02:00 or a POSIX time zone.'), 'local', check.timezone()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'));

		s = section(map, 'adguard', 'collector', _('Collector: AdGuard Home'), _('Its query log. Set size_memory in its configuration to 1, or what it says comes late.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(value(s, 'path', _('File'), '', '/var/lib/adguardhome/data/querylog.json', check.path()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'));

		s = section(map, 'syslog', 'collector', _('Collector: syslog'), _('What other machines with dnsmasq or Pi-hole send of their logs.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(values(s, 'udp', _('Datagrams on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			values(s, 'tcp', _('Connections on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			values(s, 'tls', _('TLS connections on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			value(s, 'tls_cert', _('Certificate'), _('For TLS: the chain, as PEM.'), '', check.path()),
			value(s, 'tls_key', _('Key of the certificate'), '', '', check.path()),
			value(s, 'tls_client_ca', _('CA of the senders'), _('Where given, senders must show a certificate of it.'), '', check.path()),
			values(s, 'allow', _('Who may send'), _('What others send is thrown away.'), 'or(ipaddr, cidr)'),
			value(s, 'timezone', _('Time zone of the log'), _('local, utc, +02:00 or a POSIX time zone.'), 'local', check.timezone()),
			value(s, 'rate', _('Messages a second'), _('Most of one sender.'), '5000', check.whole(1, 1000000)),
			value(s, 'connections_max', _('Connections at a time'), '', '64', check.whole(1, 1024)),
			value(s, 'lag', _('Late from'), _('Messages that come so late are told.'), '5m', check.duration('1s', '7d')),
			value(s, 'silence', _('Silent from'), _('A sender that is silent for so long is told; 0 means never.'), '30m', check.durationOrNever('1s', '7d')));
	},

	piholes(map) {
		let s = section(map, 'pihole', 'collector', _('Collector: Pi-hole'), _('The log of a Pi-hole (v6) in the network, by its web interface.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(...web(s, 'https://pi.hole', '/etc/agentmon/pihole.password', '/etc/agentmon/pihole.pem'),
			value(s, 'name', _('What it is called'), _('In the status, where there are several.'), '', check.pihole()));

		s = many(map, 'other_pihole', _('More Pi-holes'), _('Read while the collector above is on, and called by their names here, in letters, digits and underscores.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		web(s, 'https://192.168.1.3', '/etc/agentmon/cellar.password', '/etc/agentmon/cellar.pem');

		s = section(map, 'pihole_ssh', 'collector', _('Collector: Pi-hole by SSH'), _('Its log or database. Needs openssh-client here, and a user there who may read them by sftp.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(value(s, 'host', _('Host'), _('Its name or address.'), 'pi.hole', check.host()),
			value(s, 'port', _('Port'), '', '22', check.whole(1, 65535)),
			value(s, 'user', _('User'), _('Who to be there.'), 'agentmon', check.user()),
			value(s, 'key', _('Key file'), _('A private key without a passphrase, mode 0600, of the user agentmon.'), '/etc/agentmon/pihole.key', check.plainPath()),
			value(s, 'known_hosts', _('Keys of hosts'), _('The Pi-hole\'s own key, as ssh-keyscan writes it.'), '/etc/agentmon/pihole.known_hosts', check.plainPath()),
			value(s, 'log', _('Log file'), _('Not read where a database is named and this is empty.'), '/var/log/pihole/pihole.log', check.path()),
			value(s, 'timezone', _('Time zone of the log'), _('local, utc, +02:00 or a POSIX time zone.'), 'local', check.timezone()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'),
			value(s, 'database', _('Database'), _('In place of the log: it is copied and read.'), '', check.path()),
			value(s, 'copy_interval', _('Copy it every'), _('Where it has changed.'), '15m', check.duration('30s', '1d')),
			value(s, 'copy_size', _('Longest database'), '', '512M', check.size('64K', '64G')),
			value(s, 'copy_folder', _('Folder of the copy'), _('On /tmp it is in memory.'), '/tmp/agentmon', check.path()));

		s = section(map, 'pihole_ftl', 'collector', _('Collector: database of Pi-hole'), _('The long-term database of a Pi-hole on this machine.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(value(s, 'path', _('File'), '', '/etc/pihole/pihole-FTL.db', check.path()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'),
			value(s, 'poll_interval', _('Look for new rows every'), _('Pi-hole writes once a minute.'), '30s', check.duration('5s', '1h')));
	},

	devices(map) {
		let s = section(map, 'leases', 'collector', _('Collector: names of devices'), _('From DHCP leases.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'path', _('Lease files'), _('Files that do not exist are left alone.'), check.path()));

		s = section(map, 'neighbours', 'collector', _('Collector: neighbours'), _('Which MAC has which address, from the kernel.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'dump_interval', _('Full read every'), _('Changes are seen at once.'), '60s', check.duration('1s', '1h')));
	}
});
