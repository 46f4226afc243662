-- A run may begin in the hands of the replica that accepts it: its lease is made as that replica's, and nobody is woken.
drop function start_runs(text[], text[], text[], text[], text[], text[], text[], int[], text[], text[], text[], bytea[], timestamptz[],
  text[], bytea[], bytea[], text[], text[]);
create function start_runs(
  p_tenants text[], p_ids text[], p_topics text[], p_modes text[], p_strategies text[], p_participants text[], p_metadata text[],
  p_statuses int[], p_subjects text[], p_roles text[], p_requests text[], p_data bytea[], p_started timestamptz[],
  p_kinds text[], p_payloads bytea[], p_macs bytea[], p_graphs text[], p_graph_json text[],
  p_owners text[] default null, p_ttl interval default null
) returns table (run int, earlier bytea) language plpgsql as $$
declare
  v_tenant text;
  v_new int[];
begin
  for v_tenant in select distinct t from unnest(p_tenants) t order by t loop
    perform set_config('app.tenant', v_tenant, true);
    with made as (
      insert into session (tenant_id, id, topic_start, topic_final, mode, strategy, participants, metadata, status,
        starter_subject, starter_roles, request_id, data, started_at)
      select v_tenant, p_ids[i], p_topics[i], p_topics[i], p_modes[i], p_strategies[i],
        array(select jsonb_array_elements_text(p_participants[i]::jsonb)), p_metadata[i]::jsonb, p_statuses[i],
        p_subjects[i], array(select jsonb_array_elements_text(p_roles[i]::jsonb)), p_requests[i], p_data[i], p_started[i]
      from generate_subscripts(p_tenants, 1) i where p_tenants[i] = v_tenant
      on conflict do nothing
      returning id
    )
    select array_agg(i) into v_new from generate_subscripts(p_tenants, 1) i join made on made.id = p_ids[i]
      where p_tenants[i] = v_tenant;
    return query
      select i, s.data from generate_subscripts(p_tenants, 1) i
      left join session s on s.tenant_id = v_tenant and s.request_id = p_requests[i] and s.id <> p_ids[i]
      where p_tenants[i] = v_tenant and not i = any(coalesce(v_new, '{}'));
    continue when v_new is null;
    insert into event (tenant_id, session_id, sequence, kind, payload, mac)
      select v_tenant, p_ids[i], 1, p_kinds[i], p_payloads[i], p_macs[i] from unnest(v_new) i;
    insert into happening (tenant_id, session_id, sequence, kind)
      select v_tenant, p_ids[i], 1, p_kinds[i] from unnest(v_new) i where is_followed(p_kinds[i]);
    insert into task_graph (tenant_id, id, session_id, graph_json, status)
      select v_tenant, p_graphs[i], p_ids[i], p_graph_json[i]::jsonb, 'pending'
      from unnest(v_new) i where p_graphs[i] is not null;
    insert into session_lease (tenant_id, session_id, kind, owner, fence, expires_at)
      select v_tenant, p_ids[i], case when p_graphs[i] is null then 'session' else 'graph' end, p_owners[i],
        (p_owners[i] is not null)::int, case when p_owners[i] is null then '-infinity' else clock_timestamp() + p_ttl end
      from unnest(v_new) i;
    perform pg_notify('orchestrator_wake', p_ids[i]) from unnest(v_new) i where p_owners[i] is null;
  end loop;
end $$;
