-- name: forget_graph
drop index memory.memory_episode_384_near;

-- name: make_graph
create index memory_episode_384_near on memory.memory_episode_384 using hnsw (embedding halfvec_cosine_ops) where in_graph;

-- name: into_graph
update memory.memory_episode_384 set in_graph = true where tenant_id = $1 and not in_graph;

-- name: count
insert into memory.memory_count (tenant_id, memory_type, memories, characters, words) values ($1, 'semantic', $2, $3, $4)
on conflict (tenant_id, memory_type) do update set memories = memory_count.memories + excluded.memories,
  characters = memory_count.characters + excluded.characters, words = memory_count.words + excluded.words;

-- name: places
select setval('memory.memory_place', nextval('memory.memory_place') + $1::bigint) - $1::bigint as first;

-- name: settings
select set_config('maintenance_work_mem', '3GB', false), set_config('max_parallel_maintenance_workers', '2', false);

-- name: analyze
analyze memory.memory_episode_384, memory.memory_word;

-- name: backends
select pid from pg_stat_activity where usename = current_user;
