// Which process began which TCP connection, told when it is established.
//
// In: the kernel's raw tracepoint `inet_sock_set_state` (sk, old state, new state). Out: records
// of `struct record` in the ring buffer `records`. A socket enters SYN_SENT in the context of
// the process that called connect(): that is when its owner is known; when it is established
// an interrupt may be running. Raw tracepoints need neither tracefs nor a cgroup.
//
// Budget: one hash look-up and one reservation per connection; `owners` forgets the least
// recently used. Invariants: nothing is read but socket and task fields, located by the
// running kernel's BTF (CO-RE).

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

// Only what is read; the offsets are the running kernel's.
struct in6_addr { __u8 bytes[16]; } CORE;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	__u16 skc_family;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} CORE;
struct sock { struct sock_common __sk_common; } CORE;
struct task_struct { struct task_struct *group_leader; __u64 start_boottime; } CORE;

struct bpf_raw_tracepoint_args { __u64 args[3]; };

// bpf_helpers of the kernel's own numbers (include/uapi/linux/bpf.h).
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *to, __u32 size) = (void *)16;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;

#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(from)))

struct owner { __u32 pid; __u32 unused; __u64 start_ns; char name[16]; };

// Host order but for addresses. 72 bytes, no holes.
struct record {
	__u32 pid;
	__u16 family;
	__u16 unused;
	__u64 start_ns;
	__u16 sport;
	__u16 dport;
	__u32 unused2;
	__u8 source[16];
	__u8 destination[16];
	char name[16]; // what the process calls itself: it may be gone before it is looked at
};

// Definitions of maps as libbpf has them: types tell the numbers (BTF).
#define NUMBER(name, value) int (*name)[value]
struct {
	NUMBER(type, 9); // BPF_MAP_TYPE_LRU_HASH
	NUMBER(max_entries, 65536);
	__u64 *key;
	struct owner *value;
} owners SEC(".maps");
struct {
	NUMBER(type, 27); // BPF_MAP_TYPE_RINGBUF
	NUMBER(max_entries, 1048576);
} records SEC(".maps");

enum { ESTABLISHED = 1, SYN_SENT = 2, CLOSE = 7, INET = 2, INET6 = 10 };

static __attribute__((always_inline)) void tell(struct sock *sk, struct owner *owner)
{
	struct record *r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r)
		return;
	__builtin_memset(r, 0, sizeof(*r));
	__u16 dport = 0;
	r->pid = owner->pid;
	r->start_ns = owner->start_ns;
	__builtin_memcpy(r->name, owner->name, sizeof(r->name));
	READ(r->family, sk->__sk_common.skc_family);
	READ(r->sport, sk->__sk_common.skc_num);
	READ(dport, sk->__sk_common.skc_dport);
	r->dport = __builtin_bswap16(dport);
	if (r->family == INET) {
		bpf_probe_read_kernel(r->source, 4, __builtin_preserve_access_index(&sk->__sk_common.skc_rcv_saddr));
		bpf_probe_read_kernel(r->destination, 4, __builtin_preserve_access_index(&sk->__sk_common.skc_daddr));
	} else {
		bpf_probe_read_kernel(r->source, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_rcv_saddr));
		bpf_probe_read_kernel(r->destination, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_daddr));
	}
	bpf_ringbuf_submit(r, 0);
}

SEC("raw_tracepoint/inet_sock_set_state")
int set_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	__u64 key = (__u64)sk;
	int state = (int)ctx->args[2];
	__u16 family = 0;

	READ(family, sk->__sk_common.skc_family);
	if (family != INET && family != INET6)
		return 0;
	if (state == SYN_SENT) {
		struct owner owner = {};
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();
		struct task_struct *leader = 0;
		READ(leader, task->group_leader);
		READ(owner.start_ns, leader->start_boottime);
		owner.pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(owner.name, sizeof(owner.name));
		bpf_map_update_elem(&owners, &key, &owner, 0);
	} else if (state == ESTABLISHED || state == CLOSE) {
		// Told once; one that was refused is not told at all.
		struct owner *known = bpf_map_lookup_elem(&owners, &key);
		if (known && state == ESTABLISHED)
			tell(sk, known);
		if (known)
			bpf_map_delete_elem(&owners, &key);
	}
	return 0;
}

// The helper that reads kernel memory asks for it; the source is under the project's licence too.
char licence[] SEC("license") = "Dual MIT/GPL";
