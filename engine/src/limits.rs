//! Every bound of the engine in one place, with its reason.

use std::time::Duration;

/// A start waits so long for the lock of a folder: whoever restarts a service begins the next process while the last one still ends.
pub const FOLDER_LOCK_WAIT: Duration = Duration::from_secs(3);
/// And looks so often.
pub const FOLDER_LOCK_STEP: Duration = Duration::from_millis(50);
/// Bytes read of a volume's marker, which is an id of 36.
pub const VOLUME_MARKER_BYTES_MAX: u64 = 200;
/// Longest SQL text, in bytes. A BI tool's generated statement stays far below; anything longer is a mistake or an attack.
pub const SQL_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of parentheses and CASE in a statement. DataFusion recurses over expressions; 128 is more than people write.
pub const SQL_DEPTH_MAX: usize = 128;
/// Most operators and separators in one statement: each takes memory of the parser and the planner.
pub const SQL_OPERATORS_MAX: usize = 20_000;
/// Most operators and keywords that are open at one place of a statement: how deep its tree may be. Planning takes time by the square of that.
pub const SQL_CHAIN_MAX: usize = 250;
/// Statements as deep as this are planned apart from what serves connections.
pub const SQL_CHAIN_LONG: usize = 40;
/// So are statements that are as long as this, in bytes.
pub const SQL_LONG_BYTES: usize = 400;
/// And plans of as many operators: a short statement may name large views.
pub const PLAN_LONG_NODES: usize = 24;
/// Most AND, OR and JOIN in one chain.
pub const SQL_LINKS_MAX: usize = 1_000;
/// Most UNION, EXCEPT and INTERSECT in one statement: each is planned within the next.
pub const SQL_SET_OPERATIONS_MAX: usize = 500;
/// Most grouping sets of one GROUP BY, which a CUBE of eight columns has: every set makes groups of every row.
pub const GROUPING_SETS_MAX: usize = 256;
/// Most WITH queries in one statement: the planner copies those known for each query.
pub const SQL_WITH_QUERIES_MAX: usize = 500;
/// Most relations that a statement names, with those of its WITH queries wherever they are named.
pub const SQL_RELATIONS_MAX: usize = 2_000;
/// Most operators of a plan before it is optimized. The largest of TPC-DS has some hundred.
pub const PLAN_NODES_MAX: usize = 10_000;
/// Most operators of a plan of which each stands over the one before.
pub const PLAN_DEPTH_MAX: usize = 1_000;
/// The stack of each thread that plans and computes. Trees of the depth above are walked recursively, with up to some ten kilobytes a level; pages
/// that nobody touches take no memory.
pub const THREAD_STACK_BYTES: usize = 64 << 20;

/// Bytes that a function makes at once without asking for memory.
pub const FUNCTION_FREE_BYTES: usize = 64 << 10;
/// Most bytes that a function makes of one batch, however much memory there is: half of what the offsets of a text reach.
pub const FUNCTION_BYTES_MAX: usize = 1 << 30;
/// Most bytes that a function makes of constants while a statement is planned: as many as its text may have. A longer value is made where it is
/// needed.
pub const CONSTANT_BYTES_MAX: usize = SQL_BYTES_MAX;
/// The same of a list: as many elements as a statement may write, since rules make conditions of them one by one.
pub const CONSTANT_LIST_BYTES_MAX: usize = 8 * SQL_OPERATORS_MAX;
/// Bytes for all constants of a statement that functions make.
pub const CONSTANTS_BYTES_MAX: usize = 4 << 20;
/// Bytes of a constant up to which nobody minds it in each row of a batch.
pub const CONSTANT_SHORT_BYTES: usize = 256;
/// A step of a join by keys has what is below it in it, such as a Parquet page: one that takes longer compares many rows of one key.
pub const KEYED_STEP_LONG: Duration = Duration::from_millis(50);
/// Bytes of the columns that a node makes of constants, for one batch.
pub const CONSTANT_COLUMNS_BYTES: usize = 16 << 20;
/// Rows of a batch, unless `datafusion.execution.batch_size` says otherwise.
pub const BATCH_ROWS_USUAL: usize = 8_192;
/// Values of a batch: with more than 128 columns it has fewer rows. Operators and queues hold batches by number, and account for few of them.
pub const BATCH_VALUES_MAX: usize = 1 << 20;
/// Rows of a batch, however many columns it has.
pub const BATCH_ROWS_MIN: usize = 64;
/// Rows of the first part of a batch that a join compares with the rows of its other side: with millions of them it takes a moment.
pub const JOIN_PART_ROWS: usize = 64;
/// A step of a task that takes longer is made smaller next time.
pub const STEP_LONG: Duration = Duration::from_millis(10);
/// One that takes less is made larger. A task that has run this long gives way to others.
pub const STEP_SHORT: Duration = Duration::from_millis(2);

/// Wait before a background task that panicked begins anew: a defect that comes back at once must not fill the log.
pub const PANIC_WAIT: Duration = Duration::from_secs(1);
/// Turns of a runtime after which it looks for messages and timers that came. With tokio's own 61 they wait for seconds where a turn takes long.
pub const TURNS_BEFORE_EVENTS: u32 = 4;

/// Longest text of an error. gRPC carries it in a header, of which clients take 16 KiB, with up to three bytes for each.
pub const ERROR_BYTES_MAX: usize = 4 << 10;

/// How often a worker reports to its coordinator.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(1_000);
/// A node that was silent this long takes no new fragments.
pub const NODE_SUSPECT_AFTER: Duration = Duration::from_millis(3_000);
/// A node that was silent this long is dead: its inventory has expired.
pub const NODE_DEAD_AFTER: Duration = Duration::from_millis(10_000);
/// Wait between a worker's tries to reach its coordinator; doubled up to the maximum.
pub const REGISTER_RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two tries to register: workers are to be back seconds after their coordinator.
pub const REGISTER_RETRY_MAX: Duration = Duration::from_secs(1);
/// For this long after its start a coordinator lets queries wait for nodes that hold their files: these are about to come back.
pub const START_PATIENCE: Duration = Duration::from_secs(8);
/// How long a query waits for suspect nodes that alone hold its files: a call that failed keeps a node out for [`NODE_SUSPECT_AFTER`].
pub const SUSPECT_PATIENCE: Duration = Duration::from_millis(4_000);
/// Wait between two looks for them.
pub const START_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A control call (register, heartbeat) that takes longer has failed.
pub const CONTROL_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a heartbeat that carries a whole inventory.
pub const INVENTORY_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait before a worker whose heartbeat failed registers again; each waits a part of it by chance, so that they do not come at once.
pub const REGISTER_AGAIN_SPREAD: Duration = Duration::from_millis(500);
/// Largest control message: an inventory of about 500,000 files.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Largest facts of one file, unpacked: bounds of 100,000 columns, or as many row groups.
pub const FILE_FACTS_BYTES_MAX: u64 = 16 << 20;
/// Deepest nesting in a Parquet footer: what writers write has five levels.
pub const FOOTER_DEPTH_MAX: usize = 32;
/// Most bytes of a Parquet file's footer and indexes of pages: those of 5,000 columns in 300 row groups have about half of it.
pub const FOOTER_BYTES_MAX: u64 = 256 << 20;
/// Bytes at the end of a Parquet file that are read first: most footers lie in them whole.
pub const FOOTER_FIRST_BYTES: u64 = 64 << 10;
/// Most files of a node, over all its volumes.
pub const NODE_FILES_MAX: usize = 1_000_000;

/// Longest wait of a node whose data path failed again and again; the first is [`NODE_SUSPECT_AFTER`], each further one twice the last.
pub const BREAKER_WAIT_MAX: Duration = Duration::from_secs(30);
/// A failure of the data path that is older than this no longer makes the next one count double.
pub const BREAKER_FORGETS_AFTER: Duration = Duration::from_secs(60);
/// What a running task beyond two a core counts as when copies are chosen: bytes that a core reads in a few hundred milliseconds.
pub const BUSY_TASK_BYTES: u64 = 64 << 20;
/// How often the coordinator compares copies that are there with copies that should be.
pub const REPLICATION_INTERVAL: Duration = Duration::from_secs(1);
/// Least time after the coordinator's start before copies are ordered: nodes come back one after another.
pub const REPLICATION_SETTLE: Duration = Duration::from_secs(4);
/// Copies that one node makes, and that one node gives, at once.
pub const REPLICAS_AT_ONCE: usize = 2;
/// Files whose copies are ordered in one step: bounds the answer to a heartbeat.
pub const REPLICA_ORDERS_MAX: usize = 1_000;
/// A copy in surplus stays this long after it was last needed: queries that were placed on it may still read it.
pub const REPLICA_DISCARD_AFTER: Duration = Duration::from_secs(60);
/// A copy of a file that no table has any more stays this long.
pub const REPLICA_ORPHAN_AFTER: Duration = Duration::from_secs(3_600);
/// Bytes that a worker hashes between two heartbeats: hashing must not make a node look dead.
pub const HASHED_BYTES_A_BEAT: u64 = 256 << 20;
/// Wait before a copy that could not be made is tried again from the start.
pub const REPLICA_RETRY_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a file in one message between nodes.
pub const FILE_MESSAGE_BYTES: usize = 1 << 20;
/// Files that one worker sends to others at once; one more is refused for the moment.
pub const FILES_SENT_MAX: usize = 16;
/// How long a node that is told to end waits for the coordinator to hear of it.
pub const LEAVE_TELL_WAIT: Duration = Duration::from_secs(3);
/// Time for plans that were placed before the coordinator heard of it to arrive.
pub const LEAVE_SETTLE: Duration = Duration::from_millis(300);
/// A node that is told to end waits this long for its running tasks.
pub const LEAVE_GRACE: Duration = Duration::from_secs(30);
/// Most copies that a table may ask for.
pub const REPLICAS_MAX: u32 = 16;

/// TCP connect to another node.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// TLS handshake with another node, in either direction: some round trips and signatures, however slow the way.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that a port runs at once; more wait in the system's queue. Each takes some ten kilobytes.
pub const HANDSHAKES_MAX: usize = 256;
/// Those of one address: what is more is closed at once, so that no machine can take them all. Nodes behind one address share it,
/// which is enough for hundreds: a handshake takes milliseconds.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;
/// Fewest connections of nodes that a port takes, however few files the process may open.
pub const NODE_CONNECTIONS_MIN: usize = 64;
/// Most of them: one or two of each other node.
pub const NODE_CONNECTIONS_MAX: usize = 4_096;
/// Those that showed no token yet; one more ends the oldest.
pub const NODE_STRANGERS_MAX: usize = 256;
/// Time until a connection's first call with the cluster's token: nodes connect to call.
pub const NODE_FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection of a node without a call for this long ends; the next call connects again.
pub const NODE_CONNECTION_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Accepted connections that wait for the service to take them; it takes them at once.
pub const CONNECTIONS_READY_MAX: usize = 64;
/// Wait after a connection that could not be accepted.
pub const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);
/// Callers that are told at once that there is no place for them; more are closed without a word.
pub const TURNED_AWAY_AT_ONCE: usize = 32;
/// Time that such a caller gets to ask, so that it can be told.
pub const TURNED_AWAY_GRACE: Duration = Duration::from_secs(3);
/// Largest message that is taken of a caller before its credentials are looked at: what any statement by hand takes.
pub const STRANGERS_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Messages up to this size are taken without asking for memory.
pub const MESSAGE_FREE_BYTES: usize = 1 << 20;
/// Refused connections are told of at most this often.
pub const HANDSHAKE_COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the headers of a call that is refused because it came without TLS.
pub const REFUSED_HEADER_BYTES_MAX: u32 = 16 << 10;
/// How long after its answer such a caller's connection is ended.
pub const REFUSED_GRACE: Duration = Duration::from_secs(1);
/// What is taken of such a caller before its connection is closed in any case.
pub const REFUSED_BYTES_MAX: u64 = 1 << 20;
/// How often a node looks whether its certificates were replaced; new ones are taken when two looks found the same.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest file of certificates or a key: hundreds of authorities.
pub const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;
/// A certificate with less than this left is told of: enough for somebody on holiday.
pub const CERTIFICATE_END_NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often it is.
pub const CERTIFICATE_END_REPEAT: Duration = Duration::from_secs(24 * 3600);
/// HTTP/2 keepalive between nodes: a stopped process is noticed after interval + timeout.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a keepalive ping may stay unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of one stream between nodes that may be on their way before somebody takes them: what a fast network carries in a millisecond.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all streams of a connection: as many as HTTP/2 can say. Streams of many queries share it, and those whose rows nobody takes for a
/// while must not hold up the others; each has its own window.
pub const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Streams of one connection at once: two of each task, and one of each partition that is read. HTTP/2 servers allow 200 unless they are told;
/// more would wait for others to end, and these for them.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1 << 20;
/// Bytes of a stream that a reader holds, beyond one message, until somebody takes them.
pub const STREAM_BUFFER_BYTES: usize = 1 << 20;
/// How long a change of residency waits for the workers to hear of it: a few heartbeats.
pub const POLICY_WAIT: Duration = Duration::from_secs(4);
/// Tasks whose readers a worker keeps account of: far more than run at once on any machine.
pub const TASKS_DECLARED_MAX: usize = 100_000;
/// Largest request for a task's rows; one is some fifty bytes.
pub const TASK_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Messages of a part of a result that wait on a worker for its client.
pub const PART_MESSAGES_QUEUED: usize = 4;
/// How long a worker waits for the coordinator's word about a client: a wrong password is answered late.
pub const CLIENT_QUESTION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long who fetches a part waits for its task to begin.
pub const PART_PATIENCE: Duration = Duration::from_secs(10);
/// Largest Arrow message of a result: below what drivers take without being asked, 4 MB.
pub const RESULT_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Largest row of a result: a message that may be sent has room for its head beside it.
pub const RESULT_ROW_BYTES_MAX: usize = DATA_MESSAGE_BYTES_MAX - (64 << 10);
/// Estimated bytes of a result from which on clients fetch it from the workers, where they can: for less, more connections cost more time than
/// they save.
pub const DIRECT_RESULT_BYTES_MIN: u64 = 64 << 20;
/// Largest Arrow message between nodes.
pub const DATA_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Longest time a query may run unless `bowshot.query_timeout_ms` says otherwise.
pub const QUERY_TIMEOUT_MS: u64 = 600_000;
/// Queries that run at once on a coordinator; more wait in the queue.
pub const QUERIES_RUNNING_MAX: usize = 32;
/// Queries that may wait for admission unless `coordinator.query.max_waiting` says otherwise; one more is refused.
pub const QUERIES_WAITING_MAX: usize = 256;
/// Statements without stored tables that run at once, beside the queries: they take milliseconds, and a user has at most half of the places.
pub const SMALL_QUERIES_RUNNING_MAX: usize = 32;
/// Tasks that a worker runs at once, for each of its cores, however little memory it has.
pub const TASKS_A_CORE_MIN: u64 = 4;
/// What a task holds beside its operators' accounts: pages that are decoded, rows on their way.
pub const TASK_BUFFER_BYTES: u64 = 16 << 20;
/// Most tasks that a worker runs at once unless `worker.max_tasks` says otherwise: ten of each query of a full coordinator, and more than enough
/// to keep cores busy.
pub const TASKS_RUNNING_MAX: u64 = 512;
/// Bytes of spilled data on a node unless `spill_bytes_max` says otherwise: what a system disk can spare.
pub const SPILL_BYTES_MAX: u64 = 100_000_000_000;
/// Whole-query tries, the first included, while no row has been released.
pub const QUERY_TRIES_MAX: u32 = 3;
/// Wait before the second try; doubled for the third.
pub const QUERY_RETRY_WAIT: Duration = Duration::from_millis(50);
/// Wait before a query that ran out of memory is tried again: what the tasks of the try before hold counts against it until they have ended.
pub const MEMORY_RETRY_WAIT: Duration = Duration::from_secs(2);
/// Workers lost in a row after which a statement is quarantined.
pub const QUARANTINE_LOSSES: usize = 2;
/// How long the first time; each further loss makes it twice as long.
pub const QUARANTINE_WAIT: Duration = Duration::from_secs(60);
/// Longest quarantine.
pub const QUARANTINE_WAIT_MAX: Duration = Duration::from_secs(600);
/// A loss is held against a statement this long after the last one.
pub const QUARANTINE_FORGETS_AFTER: Duration = Duration::from_secs(3_600);
/// Statements that losses are counted for.
pub const QUARANTINE_STATEMENTS_MAX: usize = 1_000;
/// Queries that `system.queries` and `system.tasks` remember.
pub const QUERIES_REMEMBERED: usize = 1_000;
/// How long a client may take no row of a result while other queries wait for its places, unless `coordinator.query.unread_ms` says otherwise:
/// longer than programs think between two batches.
pub const UNREAD_MS: u64 = 60_000;
/// How often it is looked whether others wait.
pub const UNREAD_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Batches between the query and a slow client before the query is held back.
pub const RESULT_QUEUE_BATCHES: usize = 8;

/// How long the reports of a query's tasks may take to arrive after its last row.
pub const TASK_REPORTS_WAIT: Duration = Duration::from_secs(5);

/// How often a worker touches its task cache so that tasks of ended queries are dropped.
pub const TASK_CACHE_TICK: Duration = Duration::from_millis(400);
/// Epochs that are asked to end at every touch; two would do if no thread were looking into a cache just then.
pub const TASK_CACHE_EPOCHS: usize = 4;
/// Footers that a worker keeps parsed.
pub const FOOTERS_CACHED: u64 = 4_096;
/// Files whose last opened version a worker knows: chunks of the one before leave the cache when a new one is opened.
pub const VERSIONS_KEPT: u64 = 65_536;
/// Columns of files that a worker lists as cached, the largest first: a heartbeat with them stays near a megabyte.
pub const CACHED_COLUMNS_LISTED: usize = 10_000;
/// Row groups whose loads are remembered, so that queries that need one at the same time load it once.
pub const FLIGHTS_KEPT: u64 = 16_384;
/// Expressions over columns that a worker knows by number, under which their chunks are cached.
pub const COMPUTATIONS_KEPT: u64 = 16_384;
/// Deepest folder below a volume that is searched for Parquet files.
pub const VOLUME_DEPTH_MAX: usize = 16;
/// Most files of one volume.
pub const VOLUME_FILES_MAX: usize = 100_000;
/// Bytes that the scrubber reads in one go.
pub const SCRUB_READ_BYTES: usize = 1 << 20;
/// How often the scrubber looks whether it is asked for, or its node ends.
pub const SCRUB_STEP: Duration = Duration::from_millis(200);
/// When the scrubber begins after its node's start.
pub const SCRUB_FIRST_WAIT: Duration = Duration::from_secs(60);
/// Pause of the scrubber once it has read everything: a small node's disk need not spin for it all day.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Most files that a heartbeat tells the scrubber's result of.
pub const SCRUBBED_A_BEAT: usize = 1_000;
/// Most results of scrubbers that wait to be compared with the catalog, over all nodes.
pub const SCRUBBED_WAITING_MAX: usize = 100_000;
/// Most unreadable files of a node that are known by name. Where there are more, no table is made of its volumes: one might lack rows.
pub const UNREADABLE_FILES_MAX: usize = 1_000;
/// Most files that a table leaves out because they cannot be read: they stand in the catalog by name.
pub const BAD_FILES_MAX: usize = 1_000;
/// How long CREATE EXTERNAL TABLE and REFRESH TABLE wait for every live node's fresh inventory.
pub const INVENTORY_WAIT: Duration = Duration::from_secs(15);
/// Most files listed below one bucket prefix.
pub const BUCKET_FILES_MAX: usize = 100_000;
/// Views of one session.
pub const SESSION_VIEWS_MAX: usize = 1_000;

const _: () = assert!(HANDSHAKES_PER_ADDRESS_MAX < HANDSHAKES_MAX);
const _: () = assert!(REFUSED_GRACE.as_millis() < HANDSHAKE_TIMEOUT.as_millis());

/// An address whose nodes are refused has a line in the log once in this time: such a node tries again every few seconds.
pub const REFUSED_NODE_LINE_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses of refused nodes that are remembered, of some hundred bytes each; beyond them only the counter goes on.
pub const REFUSED_NODES_REMEMBERED: usize = 1_000;
/// Letters of what a refused caller says of itself, in a line of the log.
pub const REFUSED_NODE_TEXT_LETTERS: usize = 400;
/// Bytes of a refused caller's message that are searched for the name of its node: a register has some thousand.
pub const REFUSED_NODE_BODY_BYTES: usize = 64 << 10;
/// Files of tables are compared with what nodes hold for metrics at most this often: that takes a look at each of them.
pub const FILE_FIGURES_KEPT: Duration = Duration::from_secs(10);
/// How long a question whether the coordinator would take a node in may last, connecting included: somebody waits for the answer.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Files of managed tables that a worker writes at once; more wait.
pub const TABLE_FILES_WRITTEN_MAX: usize = 8;
/// Batches on their way to the thread that writes one.
pub const TABLE_FILE_BATCHES_QUEUED: usize = 2;
/// Bytes in memory at which a row group of one is closed.
pub const TABLE_FILE_GROUP_BYTES: usize = 64 << 20;
/// Bytes of rows in memory after which a statement begins its next file, on the next node.
pub const TABLE_FILE_ROWS_BYTES: usize = 512 << 20;
/// Files that one statement has under way: the one that takes rows, and those that are being closed.
pub const TABLE_FILES_A_STATEMENT: usize = 3;
/// How well files of managed tables are compressed: the level that costs little to write.
pub const TABLE_FILE_ZSTD_LEVEL: i32 = 1;
/// How long a worker may take to close a file.
pub const TABLE_FILE_CLOSE_WAIT: Duration = Duration::from_secs(120);
/// How long files that no table has any more are kept beyond the deadline of the queries that began while one had them.
pub const TABLE_FILE_DISCARD_AFTER: Duration = Duration::from_secs(20);
/// Files to delete that a node is told of at once.
pub const TABLE_FILE_DELETES_MAX: usize = 1_000;
/// Bytes of a comment on a table or a column.
pub const COMMENT_BYTES_MAX: usize = 64 << 10;
