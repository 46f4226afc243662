-- Embeddings as wide as their model makes them: what is not 384 or 1536 wide shares one table, never padded. The widths in wide use
-- have a graph each; others are compared one by one.
create table memory_episode_any (like memory_episode including defaults, primary key (tenant_id, id))
  partition by hash (tenant_id);
alter table memory_episode_any alter column embedding type halfvec;

do $$
declare
  part integer;
  name text;
begin
  for part in 0..15 loop
    execute format('create table %I partition of memory_episode_any for values with (modulus 16, remainder %s)',
      'memory_episode_any_' || part, part);
  end loop;
  foreach name in array array['memory_episode_any'] || array(select 'memory_episode_any_' || n from generate_series(0, 15) as n) loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format('create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
  foreach name in array array['768', '1024', '3072'] loop
    execute format('create index memory_episode_any_near_%s on memory_episode_any using hnsw ((embedding::halfvec(%s)) '
      'halfvec_cosine_ops) where in_graph and vector_dims(embedding) = %s', name, name, name);
  end loop;
end $$;

create unique index memory_episode_any_same on memory_episode_any (tenant_id, embedding_set, agent_name, memory_type, content_hash);
create index memory_episode_any_place on memory_episode_any (tenant_id, place);
create index memory_episode_any_by_time on memory_episode_any (tenant_id, created_at, id);
create index memory_episode_any_session on memory_episode_any (tenant_id, session_id, created_at, place) where session_id <> '';
create index memory_episode_any_fresh on memory_episode_any (tenant_id, place) where not in_graph;

-- For a change of model: whose vectors are another model's, the oldest first.
create index memory_episode_model on memory_episode (tenant_id, embedding_model, place) where embedding_model <> '';
create index memory_episode_384_model on memory_episode_384 (tenant_id, embedding_model, place) where embedding_model <> '';
create index memory_episode_any_model on memory_episode_any (tenant_id, embedding_model, place) where embedding_model <> '';

create or replace view memory with (security_invoker = true) as
  select tenant_id, id, place, agent_name, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at from memory_episode
  union all
  select tenant_id, id, place, agent_name, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at from memory_episode_384
  union all
  select tenant_id, id, place, agent_name, embedding_model, embedding_set, content, content_hash, memory_type, session_id,
    turn_id, tags, metadata, importance, policy_version, created_at, updated_at, expires_at from memory_episode_any;

create or replace function analyze_memories() returns void language sql security definer set search_path = memory as $$
  analyze memory_episode;
  analyze memory_episode_384;
  analyze memory_episode_any;
  analyze memory_word;
$$;
