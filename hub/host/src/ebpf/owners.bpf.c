// Which process has which connection, and which program it runs: told as it happens, in every
// network namespace.
//
// In: raw tracepoints `inet_sock_set_state`, `sched_process_{fork,exec,exit}`, and hooks of
// cgroup v2 (`connect`, `sendmsg`, `sock_release`) for UDP. Out: records in the ring buffer
// `records`: `struct flow`, `struct exec`, `struct step`, told apart by their first word.
//
// - TCP out: SYN_SENT is entered by who calls connect(); it is told when it is established,
//   where an interrupt may be running.
// - TCP in: the owner is who called listen() for that port of that namespace, until somebody
//   closes it: FIN_WAIT1 and LAST_ACK are entered by who closes.
// - UDP: who sends or connects; one record for each socket and peer in SAY_AGAIN_NS.
// - A program that lives for milliseconds is told whole: file, arguments (never the
//   environment), parent, account, network namespace.
//
// Budget: one look-up and one reservation for each of these; maps forget the least recently
// used. Invariants: no hook ever refuses anything; nothing is read but fields located by the
// running kernel's BTF (CO-RE); what finds no room is counted in `lost`, told with every record.

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))
#define INLINE static __attribute__((always_inline))

// Only what is read; the offsets are the running kernel's.
struct ns_common { __u32 inum; } CORE;
struct net { struct ns_common ns; } CORE;
struct in6_addr { __u8 bytes[16]; } CORE;
struct netref { struct net *net; } CORE;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	__u16 skc_family;
	struct netref skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} CORE;
struct account { __u32 val; } CORE;
struct sock { struct sock_common __sk_common; __u16 sk_protocol; struct account sk_uid; } CORE;
struct inet_sock { struct sock sk; __u16 inet_sport; } CORE;
struct tcp_sock { __u64 bytes_acked, bytes_received; __u32 segs_in, segs_out; } CORE;
struct mm_struct { unsigned long arg_start, arg_end; } CORE;
struct nsproxy { struct net *net_ns; } CORE;
struct task_struct {
	struct task_struct *group_leader, *real_parent;
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	__u64 start_boottime;
	int pid, tgid;
	__u32 flags;
} CORE;
struct super_block { __u32 s_dev; } CORE;
struct inode { unsigned long i_ino; __s64 i_size; struct super_block *i_sb; } CORE;
struct file { struct inode *f_inode; } CORE;
struct linux_binprm { struct file *file; const char *filename, *interp; } CORE;

// What the kernel hands over (include/uapi/linux/bpf.h).
struct bpf_raw_tracepoint_args { __u64 args[3]; };
struct bpf_sock { __u32 bound_dev_if, family, type, protocol; };
struct bpf_sock_addr {
	__u32 user_family, user_ip4, user_ip6[4], user_port, family, type, protocol, msg_src_ip4, msg_src_ip6[4];
	struct bpf_sock *sk;
};

// bpf_helpers of the kernel's own numbers (the same file).
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *to, __u32 size) = (void *)16;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
static __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static long (*bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, __u32 size, const void *from) = (void *)115;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;

#define AT(from) __builtin_preserve_access_index(&(from))
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), AT(from))

enum { BEGAN = 1, ENDED, EXEC, FORK, EXIT };
enum { OUT = 0, IN = 1, LISTENS = 2 };
enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, FIN_WAIT1 = 4, CLOSE = 7, LAST_ACK = 9, LISTEN = 10 };
enum { INET = 2, INET6 = 10, TCP = 6, UDP = 17 };
enum { PF_KTHREAD = 0x00200000 };
enum { PATH_BYTES = 256, ARGV_BYTES = 512 };
#define SAY_AGAIN_NS 60000000000ULL

// Host order but for addresses; no holes. The first two words are the same in all of them.
struct owner { __u64 start_ns; __u32 pid; __u32 unused; char name[16]; };
struct flow { // 136 bytes
	__u32 kind, lost;
	__u64 at_ns, socket, cookie;
	struct owner owner; // pid 0: not known
	__u32 netns, uid;
	__u16 family;
	__u8 proto, way;
	__u16 sport, dport;
	__u8 source[16], destination[16];
	__u64 sent, received;
	__u32 segs_out, segs_in;
};
struct step { __u32 kind, lost, pid, parent; __u64 at_ns, start_ns; }; // 32 bytes: FORK, EXIT
struct exec { // 848 bytes
	__u32 kind, lost, pid, parent;
	__u64 at_ns, start_ns, inode, size;
	__u32 dev, netns, uid, argv_bytes; // all there are
	char name[16], path[PATH_BYTES], argv[ARGV_BYTES];
};
struct port { __u32 netns; __u32 port; };
struct peer { __u64 socket; __u8 ip[16]; __u32 port; __u32 unused; };

// Definitions of maps as libbpf has them: types tell the numbers (BTF).
#define NUMBER(name, value) int (*name)[value]
#define LRU_HASH NUMBER(type, 9)
struct { LRU_HASH; NUMBER(max_entries, 32768); __u64 *key; struct flow *value; } flows SEC(".maps");
struct { LRU_HASH; NUMBER(max_entries, 4096); struct port *key; struct owner *value; } listeners SEC(".maps");
struct { LRU_HASH; NUMBER(max_entries, 16384); struct peer *key; __u64 *value; } peers SEC(".maps");
struct { NUMBER(type, 2); NUMBER(max_entries, 1); __u32 *key; __u32 *value; } lost SEC(".maps");
struct { NUMBER(type, 27); NUMBER(max_entries, 1048576); } records SEC(".maps");

INLINE void *reserve(__u64 size, __u32 kind)
{
	__u32 zero = 0, *count = bpf_map_lookup_elem(&lost, &zero);
	// Both words lead every record.
	__u32 *record = size == sizeof(struct exec) ? bpf_ringbuf_reserve(&records, sizeof(struct exec), 0)
		: size == sizeof(struct flow) ? bpf_ringbuf_reserve(&records, sizeof(struct flow), 0)
		: bpf_ringbuf_reserve(&records, sizeof(struct step), 0);
	if (!record && count)
		__sync_fetch_and_add(count, 1);
	if (record) {
		record[0] = kind;
		record[1] = count ? *count : 0;
	}
	return record;
}

INLINE __u64 start_of(struct task_struct *task)
{
	struct task_struct *leader = 0;
	__u64 start = 0;
	READ(leader, task->group_leader);
	READ(start, leader->start_boottime);
	return start;
}

// Whoever is running. False for the kernel itself.
INLINE int me(struct owner *owner)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 flags = 0;
	int tgid = 0;
	READ(flags, task->flags);
	if (flags & PF_KTHREAD)
		return 0;
	READ(tgid, task->tgid);
	owner->pid = tgid;
	owner->start_ns = start_of(task);
	bpf_get_current_comm(owner->name, sizeof(owner->name));
	return 1;
}

INLINE __u32 netns_of(struct sock *sk)
{
	struct net *net = 0;
	__u32 inum = 0;
	READ(net, sk->__sk_common.skc_net.net);
	READ(inum, net->ns.inum);
	return inum;
}

// Both ends, namespace and account, as the socket has them now.
INLINE void ends(struct flow *f, struct sock *sk)
{
	__u16 be = 0;
	f->socket = (__u64)sk;
	READ(f->family, sk->__sk_common.skc_family);
	READ(f->uid, sk->sk_uid.val);
	f->netns = netns_of(sk);
	// One that is closed has given back its `num` already.
	READ(f->sport, sk->__sk_common.skc_num);
	if (!f->sport) {
		READ(be, ((struct inet_sock *)sk)->inet_sport);
		f->sport = __builtin_bswap16(be);
	}
	be = 0;
	READ(be, sk->__sk_common.skc_dport);
	f->dport = __builtin_bswap16(be);
	if (f->family == INET) {
		bpf_probe_read_kernel(f->source, 4, AT(sk->__sk_common.skc_rcv_saddr));
		bpf_probe_read_kernel(f->destination, 4, AT(sk->__sk_common.skc_daddr));
	} else {
		bpf_probe_read_kernel(f->source, 16, AT(sk->__sk_common.skc_v6_rcv_saddr));
		bpf_probe_read_kernel(f->destination, 16, AT(sk->__sk_common.skc_v6_daddr));
	}
}

INLINE void tell(struct flow *f, __u32 kind)
{
	struct flow *r = reserve(sizeof(*r), kind);
	if (!r)
		return;
	__u32 before = r->lost;
	__builtin_memcpy(r, f, sizeof(*r));
	r->kind = kind;
	r->lost = before;
	r->at_ns = bpf_ktime_get_boot_ns();
	bpf_ringbuf_submit(r, 0);
}

// Kept by its socket; told as begun where that is due.
INLINE void keep(struct sock *sk, struct flow *f)
{
	__u64 key = (__u64)sk;
	bpf_map_update_elem(&flows, &key, f, 0);
}

INLINE void over(struct sock *sk, struct flow *known, int old)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	struct flow f = {};
	__u64 key = (__u64)sk;

	if (known)
		__builtin_memcpy(&f, known, sizeof(f));
	if (!f.sport) { // older than this program, or nobody answered
		ends(&f, sk);
		f.proto = TCP;
	}
	READ(f.sent, tcp->bytes_acked);
	READ(f.received, tcp->bytes_received);
	READ(f.segs_out, tcp->segs_out);
	READ(f.segs_in, tcp->segs_in);
	tell(&f, ENDED);
	if (old == LISTEN) {
		struct port port = { .netns = f.netns, .port = f.sport };
		bpf_map_delete_elem(&listeners, &port);
	}
	if (known)
		bpf_map_delete_elem(&flows, &key);
}

SEC("raw_tracepoint/inet_sock_set_state")
int set_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	__u64 key = (__u64)sk;
	int old = (int)ctx->args[1], state = (int)ctx->args[2];
	__u16 proto = 0;
	struct flow f = {}, *known;

	READ(proto, sk->sk_protocol);
	if (proto != TCP)
		return 0;
	if (state == SYN_SENT || state == LISTEN) {
		if (!me(&f.owner))
			return 0;
		f.proto = TCP;
		f.way = state == LISTEN ? LISTENS : OUT;
		if (state == LISTEN) {
			ends(&f, sk);
			struct port port = { .netns = f.netns, .port = f.sport };
			bpf_map_update_elem(&listeners, &port, &f.owner, 0);
			tell(&f, BEGAN);
		}
		keep(sk, &f);
		return 0;
	}
	known = bpf_map_lookup_elem(&flows, &key);
	if (state == ESTABLISHED && known) {
		ends(known, sk);
		tell(known, BEGAN);
	} else if (state == ESTABLISHED && old == SYN_RECV) {
		ends(&f, sk);
		f.proto = TCP;
		f.way = IN;
		struct port port = { .netns = f.netns, .port = f.sport };
		struct owner *listener = bpf_map_lookup_elem(&listeners, &port);
		if (listener)
			__builtin_memcpy(&f.owner, listener, sizeof(f.owner));
		keep(sk, &f);
		tell(&f, BEGAN);
	} else if ((state == FIN_WAIT1 || state == LAST_ACK) && known && known->way == IN) {
		me(&known->owner);
	} else if (state == CLOSE && (known || (old != SYN_RECV && old != CLOSE))) {
		over(sk, known, old);
	}
	return 0;
}

// A socket as a hook has it, as the number that it is: only that may be reckoned with.
INLINE struct sock *plain(void *given)
{
	struct sock *sk = 0;
	bpf_probe_read_kernel(&sk, sizeof(sk), &given);
	return sk;
}

// A datagram's peer, at the first of them and again after a while. Always allowed.
INLINE int datagram(struct bpf_sock_addr *ctx, __u16 family, const __u32 *ip, int words, int again)
{
	struct sock *sk = plain(ctx->sk);
	struct peer peer = { .socket = (__u64)sk, .port = ctx->user_port };
	__u64 now = bpf_ktime_get_boot_ns(), *last;
	struct flow f = {};

	if (ctx->protocol != UDP || !sk)
		return 1;
	__builtin_memcpy(peer.ip, ip, words * 4);
	last = bpf_map_lookup_elem(&peers, &peer);
	if (last && again && now - *last < SAY_AGAIN_NS)
		return 1;
	bpf_map_update_elem(&peers, &peer, &now, 0);
	if (!me(&f.owner))
		return 1;
	ends(&f, sk);
	if (f.family != family) // one for both families that sends to the older one
		__builtin_memset(f.source, 0, sizeof(f.source));
	f.family = family;
	f.proto = UDP;
	f.cookie = bpf_get_socket_cookie(ctx);
	f.dport = __builtin_bswap16((__u16)ctx->user_port);
	__builtin_memset(f.destination, 0, sizeof(f.destination));
	__builtin_memcpy(f.destination, ip, words * 4);
	keep(sk, &f);
	tell(&f, BEGAN);
	return 1;
}

#define DATAGRAM4(name, again) \
	int name(struct bpf_sock_addr *ctx) \
	{ \
		__u32 ip[1] = { ctx->user_ip4 }; \
		return datagram(ctx, INET, ip, 1, again); \
	}
#define DATAGRAM6(name, again) \
	int name(struct bpf_sock_addr *ctx) \
	{ \
		__u32 ip[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] }; \
		return datagram(ctx, INET6, ip, 4, again); \
	}

SEC("cgroup/connect4") DATAGRAM4(connect4, 0)
SEC("cgroup/connect6") DATAGRAM6(connect6, 0)
SEC("cgroup/sendmsg4") DATAGRAM4(sendmsg4, 1)
SEC("cgroup/sendmsg6") DATAGRAM6(sendmsg6, 1)

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	struct sock *sk = plain(ctx);
	__u64 key = (__u64)sk;
	struct flow *known;

	if (ctx->protocol != UDP)
		return 1;
	known = bpf_map_lookup_elem(&flows, &key);
	if (!known || known->proto != UDP)
		return 1;
	// Its own end is known by now.
	ends(known, sk);
	tell(known, ENDED);
	bpf_map_delete_elem(&flows, &key);
	return 1;
}

SEC("raw_tracepoint/sched_process_fork")
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx->args[0];
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	struct step *r;
	int pid = 0, tgid = 0, above = 0;

	READ(pid, child->pid);
	READ(tgid, child->tgid);
	READ(above, parent->tgid);
	if (pid != tgid) // a thread
		return 0;
	r = reserve(sizeof(*r), FORK);
	if (!r)
		return 0;
	r->pid = tgid;
	r->parent = above;
	r->at_ns = bpf_ktime_get_boot_ns();
	r->start_ns = start_of(child);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

SEC("raw_tracepoint/sched_process_exit")
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct step *r;
	int pid = 0, tgid = 0;

	READ(pid, task->pid);
	READ(tgid, task->tgid);
	if (pid != tgid)
		return 0;
	r = reserve(sizeof(*r), EXIT);
	if (!r)
		return 0;
	r->pid = tgid;
	r->parent = 0;
	r->at_ns = bpf_ktime_get_boot_ns();
	r->start_ns = start_of(task);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

SEC("raw_tracepoint/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0], *parent = 0;
	struct linux_binprm *program = (struct linux_binprm *)ctx->args[2];
	struct nsproxy *namespaces = 0;
	struct net *net = 0;
	struct mm_struct *mm = 0;
	struct file *file = 0;
	struct inode *inode = 0;
	struct super_block *disk = 0;
	const char *path = 0;
	unsigned long from = 0, to = 0;
	int pid = 0;
	struct exec *r = reserve(sizeof(*r), EXEC);

	if (!r)
		return 0;
	__builtin_memset(&r->at_ns, 0, sizeof(*r) - 16);
	READ(pid, task->tgid);
	r->pid = pid;
	READ(parent, task->real_parent);
	READ(r->parent, parent->tgid);
	r->at_ns = bpf_ktime_get_boot_ns();
	r->start_ns = start_of(task);
	r->uid = (__u32)bpf_get_current_uid_gid();
	READ(namespaces, task->nsproxy);
	READ(net, namespaces->net_ns);
	READ(r->netns, net->ns.inum);
	bpf_get_current_comm(r->name, sizeof(r->name));
	READ(file, program->file);
	READ(inode, file->f_inode);
	READ(r->inode, inode->i_ino);
	READ(r->size, inode->i_size);
	READ(disk, inode->i_sb);
	READ(r->dev, disk->s_dev);
	READ(path, program->interp); // of a script: what runs it
	bpf_probe_read_kernel_str(r->path, sizeof(r->path), path);
	READ(mm, task->mm);
	READ(from, mm->arg_start);
	READ(to, mm->arg_end);
	r->argv_bytes = to - from;
	// Behind the arguments lies the environment: not a byte too many.
	__u64 size = to - from;
	if (size > ARGV_BYTES - 1)
		size = ARGV_BYTES - 1;
	size &= ARGV_BYTES - 1;
	bpf_probe_read_user(r->argv, size, (void *)from);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

// The helper that reads kernel memory asks for it; the source is under the project's licence too.
char licence[] SEC("license") = "Dual MIT/GPL";
